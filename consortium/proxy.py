"""HAProxy on both sides of the way between silos and server: its configuration, rendered here.

At the server it is the only thing that listens for others. It asks for a certificate of the consortium's authority,
lets nothing through but Flower's Fleet API, counts each member by the name in its certificate, wants the node key of
that member and no other with it, and hands what is left to the SuperLink on loopback. At a silo it shows the silo's
certificate, which Flower's SuperNode cannot.

What it answers with is chosen for Flower 1.41, whose clients try again after 502, 503 and 504 and after nothing else:
a member over its rate is told 503, not 429, which would end its SuperNode.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from quire.consortium.about import Server
from quire.consortium.errors import ConsortiumError
from quire.consortium.loopback import LOOPBACK, LOOPBACK_NAME

#: The largest body of a request, in bytes. Flower sends arrays in pieces of 5 MiB; only other records go in one.
MOST_BODY = 300 * 2**20
#: The most requests of one member in 10 seconds, and the most connections that one may hold open.
MOST_REQUESTS, MOST_CONNECTIONS = 2000, 64
#: A member with more requests in 10 seconds than the first is busy, until it has fewer than the second; of all busy
#: ones together the SuperLink gets the third in a second, and the rest waits.
BUSY, CALM, LANE = 300, 50, 10
#: The most connections of one address in 10 seconds, and at a time, whoever it is: counted before any handshake.
MOST_HANDSHAKES, MOST_OPEN = 500, 128
#: The most requests that the SuperLink works on at a time; others wait for their turn.
MOST_AT_SUPERLINK = 256
#: Seconds for a handshake, and the longest silence of a client that is to send or take something.
PATIENCE = 30
#: Common name in the certificate of a consortium's server.
SERVER_SUBJECT = "server"
#: All that silos may ask for.
OPEN_PATHS = "/v1/fleet/"
#: Under which Flower's SuperNode sends its public key (1.41: FLEET_HTTP_PUBLIC_KEY_HEADER), in base64.
KEY_HEADER = "flwr-public-key"
# What means something within double quotes, in which an expression stands.
_ESCAPED = re.compile(r'[\\"$]')
_PLACES = ("/usr/sbin", "/usr/local/sbin")

_COMMON = """\
# Rendered by quire at every start: a change here is lost.
global
    log stdout format raw local0 info
    maxconn 4096
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    ssl-default-server-options ssl-min-ver TLSv1.2 no-tls-tickets
    ssl-default-bind-ciphers ECDHE+AESGCM:ECDHE+CHACHA20
    ssl-default-server-ciphers ECDHE+AESGCM:ECDHE+CHACHA20
    # No session is taken up again: each handshake looks at the certificate and at the list of revoked ones.
    tune.ssl.cachesize 0

defaults
    mode http
    log global
    option dontlognull
    option http-keep-alive
    retries 1
    timeout connect 5s
    timeout client 120s
    timeout server 300s
    timeout http-request 30s
    timeout http-keep-alive 60s
    timeout queue 30s

frontend metrics
    bind $loopback:$metrics
    http-request use-service prometheus-exporter if METH_GET { path /metrics }
    http-request deny deny_status 404
    option dontlog-normal
"""

_SERVER = """
backend members
    stick-table type string len 64 size 10k expire 10m store conn_cur,http_req_rate(10s),gpt0

backend addresses
    stick-table type ipv6 size 100k expire 1m store conn_cur,conn_rate(10s)

frontend fleet
    bind $address ssl crt $own ca-file $ca crl-file $crl verify required alpn http/1.1
    log-format '{"time":"%trg","member":"%[ssl_c_s_dn(CN),json(utf8s)]","from":"%ci","method":"%HM",\
"path":"%[var(txn.path),json(utf8s)]","status":%ST,"bytes_in":%U,"bytes_out":%B,"milliseconds":%Ta,"state":"%ts"}'
    timeout client ${patience}s
    option disable-h2-upgrade
    # Whoever has an IPv6 address has all of its /64.
    tcp-request connection track-sc1 src,ipmask(32,64) table addresses
    tcp-request connection reject if { sc1_conn_cur(addresses) gt $open_connections }
    tcp-request connection reject if { sc1_conn_rate(addresses) gt $handshakes }
    tcp-request session track-sc0 ssl_c_s_dn(CN) table members
    tcp-request session reject if { sc0_conn_cur(members) gt $connections }
    http-request set-var(txn.path) path
    http-request deny deny_status 503 if { sc0_http_req_rate(members) gt $requests }
    http-request deny deny_status 403 unless METH_POST { path_beg $open }
    http-request deny deny_status 403 if { path -m reg [^a-z0-9/-] } || { path -m sub // }
    http-request deny deny_status 403 if { req.hdr_cnt(upgrade) gt 0 }
    http-request deny deny_status 400 unless { req.fhdr_cnt(content-length) eq 1 }
    # Not req.hdr_val, which counts to 2 GiB only.
    http-request deny deny_status 413 if { req.body_size gt $body }
    # A member is who its certificate says, and its node key is no other's. Without an entry there is no variable, and
    # nothing is equal to it.
    http-request set-var(txn.key) "ssl_c_s_dn(CN),map_str($keys)"
    http-request deny deny_status 401 unless { req.fhdr_cnt($header) eq 1 }
    http-request deny deny_status 401 unless { req.fhdr($header),strcmp(txn.key) eq 0 }
    http-request set-header host $name
    http-request del-header x-forwarded- -m beg
    http-request del-header forwarded
    # Who asks more than any run needs is put off, not refused, and holds up nobody else.
    http-request sc-set-gpt0(0) 1 if { sc0_http_req_rate(members) gt $busy }
    http-request sc-set-gpt0(0) 0 if { sc0_http_req_rate(members) lt $calm }
    use_backend lane if { sc0_get_gpt0(members) gt 0 }
    default_backend superlink

# A frontend takes in so many connections a second, and lets others wait: so each request is to come on its own.
backend lane
    option http-server-close
    http-reuse never
    server lane unix@lane-$metrics.sock

frontend lane
    bind unix@lane-$metrics.sock mode 600
    no log  # the first one has logged it
    rate-limit sessions $lane
    default_backend superlink

backend superlink
    default-server maxconn $at_superlink
    server superlink $loopback:$port ssl ca-file $trusted verify required verifyhost $name sni str($name) alpn http/1.1
"""

_SILO = """
frontend supernode
    bind $loopback:$port ssl crt $own alpn http/1.1
    log-format '{"time":"%trg","path":"%[var(txn.path),json(utf8s)]","status":%ST,"bytes_in":%U,"bytes_out":%B,\
"milliseconds":%Ta,"state":"%ts"}'
    http-request set-var(txn.path) path
    http-request deny deny_status 403 unless { path_beg $open }
    default_backend consortium

backend consortium
    server consortium $address ssl crt $client ca-file $ca crl-file $crl verify required $verify alpn http/1.1
"""


class ProxyError(ConsortiumError):
    """The proxy cannot be found, or not be told what it has to know."""


@dataclass(frozen=True)
class ServerProxy:
    """What the proxy before a SuperLink has to know.

    Attributes
    ----------
    bind : Server or int
        Address and port that silos reach; of a port alone, every IPv4 address of this machine.
    certificate : pathlib.Path
        The server's, with its key, PEM.
    ca, crl : pathlib.Path
        Of the consortium's authority, PEM.
    superlink : int
        Port of the SuperLink on loopback.
    trusted : pathlib.Path
        The SuperLink's certificate.
    keys : pathlib.Path
        What :func:`render_keys` returned, in a file.
    metrics : int
        Port on loopback for Prometheus.
    requests, connections, body : int
        Limits for each member: requests in 10 seconds, connections at a time, bytes of one request.
    busy, calm, lane : int
        Requests in 10 seconds from which on a member waits for others, and below which it no longer does; requests a
        second of all who wait.
    handshakes, open_connections : int
        Limits for each address, or each /64 of IPv6: connections in 10 seconds, and at a time.
    patience : int
        Seconds for a handshake, and the longest silence of a client.
    """

    bind: Server | int
    certificate: Path
    ca: Path
    crl: Path
    superlink: int
    trusted: Path
    keys: Path
    metrics: int
    requests: int = MOST_REQUESTS
    connections: int = MOST_CONNECTIONS
    body: int = MOST_BODY
    busy: int = BUSY
    calm: int = CALM
    lane: int = LANE
    handshakes: int = MOST_HANDSHAKES
    open_connections: int = MOST_OPEN
    patience: int = PATIENCE

    def render(self) -> str:
        """Return the configuration.

        Raises
        ------
        ProxyError
            If an address or a path cannot be written into one.
        """
        return Template(_COMMON + _SERVER).substitute(
            loopback=LOOPBACK,
            name=LOOPBACK_NAME,
            metrics=self.metrics,
            address=self.bind if isinstance(self.bind, Server) else f"*:{self.bind}",
            own=_quoted(self.certificate),
            ca=_quoted(self.ca),
            crl=_quoted(self.crl),
            trusted=_quoted(self.trusted),
            port=self.superlink,
            open=OPEN_PATHS,
            requests=self.requests,
            connections=self.connections,
            body=self.body,
            busy=self.busy,
            calm=self.calm,
            lane=self.lane,
            handshakes=self.handshakes,
            open_connections=self.open_connections,
            at_superlink=MOST_AT_SUPERLINK,
            patience=self.patience,
            keys=_ESCAPED.sub(r"\\\g<0>", _quoted(self.keys)),
            header=KEY_HEADER,
        )


@dataclass(frozen=True)
class SiloProxy:
    """What the proxy before a SuperNode's way out has to know.

    Attributes
    ----------
    server : Server
        The consortium's; its certificate must be for that host.
    client : pathlib.Path
        The silo's certificate, with its key, PEM.
    ca, crl : pathlib.Path
        Of the consortium's authority, PEM.
    port : int
        On loopback, for the SuperNode.
    certificate : pathlib.Path
        For loopback, with its key, PEM.
    metrics : int
        Port on loopback for Prometheus.
    """

    server: Server
    client: Path
    ca: Path
    crl: Path
    port: int
    certificate: Path
    metrics: int

    def render(self) -> str:
        """Return the configuration.

        Raises
        ------
        ProxyError
            If an address or a path cannot be written into one.
        """
        # HAProxy compares names only. A server without one is known by its certificate's subject: the authority gives
        # that subject, together with the purpose of a server, to nobody else.
        name = self.server.host if self.server.address is None else SERVER_SUBJECT
        return Template(_COMMON + _SILO).substitute(
            loopback=LOOPBACK,
            metrics=self.metrics,
            port=self.port,
            own=_quoted(self.certificate),
            open=OPEN_PATHS,
            address=self.server,
            client=_quoted(self.client),
            ca=_quoted(self.ca),
            crl=_quoted(self.crl),
            verify=f"verifyhost {name}" + (f" sni str({name})" if self.server.address is None else ""),
        )


def render_keys(keys: Mapping[str, bytes]) -> str:
    """Return which node key each member has to show, as HAProxy reads it.

    Parameters
    ----------
    keys : mapping of str to bytes
        By name; in the bytes in which Flower sends them.
    """
    return "".join(f"{name} {base64.b64encode(key).decode()}\n" for name, key in sorted(keys.items()))


def find_haproxy(path: str) -> str:
    """Return where HAProxy is.

    Parameters
    ----------
    path : str
        A search path; where systems keep the programs of administrators is looked through as well.

    Raises
    ------
    ProxyError
        If it is not installed.
    """
    found = shutil.which("haproxy", path=":".join([path, *_PLACES]))
    if found is None:
        raise ProxyError("HAProxy is not installed: it is the package 'haproxy' (on Debian, apt-get install haproxy).")
    return found


def _quoted(path: Path) -> str:
    text = str(path.absolute())
    if not text.isprintable() or "'" in text:
        raise ProxyError(f"HAProxy cannot be told of the path {text!r}: it holds a quote or a control character.")
    return f"'{text}'"
