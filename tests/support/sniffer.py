"""Notes what leaves a machine, as whoever holds the network sees it: ``sniffer.py INTERFACE ADDRESS FILE``.

A line of JSON for each packet of IP that comes from the address: where to, and what TCP carries.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import sys
from pathlib import Path

_ALL, _IPV4, _TCP, _UDP = 0x0003, 0x0800, 6, 17


def told(frame: bytes, source: str) -> dict[str, object] | None:
    """Return what there is to note of an Ethernet frame; None if it is not from there."""
    (kind,) = struct.unpack("!H", frame[12:14])
    if kind != _IPV4 or socket.inet_ntoa(frame[26:30]) != source:
        return None
    packet = frame[14:]
    begin, (length,), protocol = (packet[0] & 15) * 4, struct.unpack("!H", packet[2:4]), packet[9]
    found: dict[str, object] = {"to": socket.inet_ntoa(packet[16:20]), "protocol": protocol}
    if protocol in (_TCP, _UDP):
        found["from_port"], found["port"] = struct.unpack("!HH", packet[begin : begin + 4])
    if protocol == _TCP:
        (found["sequence"],) = struct.unpack("!I", packet[begin + 4 : begin + 8])
        found["data"] = packet[begin + (packet[begin + 12] >> 4) * 4 : length].hex()
    return found


def main(interface: str, source: str, place: Path) -> None:
    """Listen until the process is ended."""
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as raw,
        place.open("a", buffering=1) as out,
    ):
        raw.bind((interface, 0))
        print("listening", flush=True)
        while True:
            try:
                frame = raw.recv(1 << 17)
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                continue  # the link was cut: said once, and it may come back
            if (line := told(frame, source)) is not None:
                out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
