"""What every handler of a silo is wrapped in: nothing that goes wrong inside leaves it but one of the fixed codes."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.app.error import Error

from quire.clients import contract
from quire.clients.contract import Code
from quire.errors import DataError

LOG = logging.getLogger("quire.clients")

Handler = Callable[[Message, Context], Message]


class Refusal(Exception):
    """Ends a handler with one of the fixed codes.

    Parameters
    ----------
    code : Code
        What travels.
    words : str
        Why, for the silo's own log.
    """

    def __init__(self, code: Code, words: str = "") -> None:
        super().__init__(words or code.name)
        self.code, self.words = code, words


def answering(failure: Code) -> Callable[[Handler], Handler]:
    """Turn whatever ends a handler into a reply with a fixed code; the detail stays in the silo's log.

    Flower sends the text of an exception to the server, and takes a process that ends without a reply for a crash.
    So everything is answered: running out of memory, and a library that calls ``sys.exit``, as much as a bug. Only
    the operator's own Ctrl-C passes, stripped of any text.
    """

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def answer(message: Message, context: Context) -> Message:
            if message.metadata.message_type not in contract.STAGES:
                return _answer(message, Code.BAD_REQUEST, None, "the stage's name is none of the contract's")
            try:
                return handler(message, context)
            except Refusal as refusal:
                return _answer(message, refusal.code, refusal.__cause__, refusal.words)
            except DataError as error:
                return _answer(message, Code.DATA_UNAVAILABLE, error)
            except KeyboardInterrupt:
                raise KeyboardInterrupt from None
            except BaseException as error:  # SystemExit, and what libraries derive from BaseException, included
                return _answer(message, failure, error)

        return answer

    return decorate


def _answer(message: Message, code: Code, why: BaseException | None, words: str = "") -> Message:
    with contextlib.suppress(Exception):  # a log that cannot be written must not change what travels
        LOG.error(
            "%s answered with %s%s",
            message.metadata.message_type,
            code.name,
            f": {words}." if words else "",
            exc_info=why,
        )
    return Message(Error(code=int(code), reason=contract.reason(code)), reply_to=message)
