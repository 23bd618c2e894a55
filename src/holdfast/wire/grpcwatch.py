"""gRPC calls of one message that are told something for as long as they last, as the health of a service is."""

from holdfast.wire.grpccalls import MOST_OPEN_BYTES, STOPPING, Call, CallHead, Guard, Method, parsed, too_large_for_all
from holdfast.wire.grpcmessages import Message
from holdfast.wire.grpcwire import OK_HEAD, Refused, StatusCode, only_message, prefixed
from holdfast.wire.http2stream import Stream


class Watch(Call):
    """A call of one message that is told something now and whenever it changes."""

    is_stream = True

    def __init__(self, guard: Guard, stream: Stream, head: CallHead, method: Method) -> None:
        super().__init__(guard, stream, head, method)
        self._body = b""
        self._request: Message = None
        self._told = b""

    def received(self, data: bytes, is_end: bool) -> None:
        """Take the message, which must be short; begin to tell."""
        if self._is_over:
            return
        try:
            self._body += data
            self._stream.grant(len(data))
            if len(self._body) > MOST_OPEN_BYTES:
                raise too_large_for_all()
            if is_end:
                self._request = parsed(self._method.request, only_message(self._body, self._head.encoding))
                self._guard.watchers.add(self)
                self.look()
        except Exception as error:  # noqa: BLE001 - a request is foreign input
            self.refuse(error)

    @property
    def is_partial(self) -> bool:
        """True while the message has not come."""
        return self._request is None

    def look(self) -> None:
        """Tell what is to be told, if it has changed."""
        assert self._method.watch is not None
        now = prefixed(self._method.watch(self._request).SerializeToString())
        if now != self._told and not self._stream.pending_bytes:
            self._told = now
            if not self._has_begun:
                self._has_begun = True
                self._stream.begin(OK_HEAD)
            self._stream.send(now)

    def stopping(self) -> None:
        """End the stream."""
        self.refuse(Refused(StatusCode.UNAVAILABLE, STOPPING))

    def _finish(self) -> None:
        super()._finish()
        self._guard.watchers.discard(self)
