"""The server from its start to its end: socket, loading, signals."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from crystalline.errors import EXIT_USAGE, UserError, from_os_error
from crystalline.run_folder import reporting_os_errors
from crystalline.serving import api
from crystalline.serving.metrics import Metrics
from crystalline.serving.models import Models
from crystalline.settings import Serving

log = logging.getLogger("crystalline.serving")


def serve(
    paths: Sequence[Path],
    settings: Serving,
    on_ready: Callable[[str, list[str]], None],
    precision: str | None = None,
) -> None:
    """Answer until Ctrl-C (KeyboardInterrupt is then raised) or SIGTERM.

    on_ready: is told the address and the names of the models, as soon as they can answer.
    precision: of the weights, see `crystalline.model.generation.load`. Raises UserError when there is nothing to
    serve, the settings cannot be used or the port is taken.
    """
    keys = all_keys(settings)
    metrics = Metrics()
    models = Models(paths, settings, metrics, precision)
    with _listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        if not keys and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            log.warning(
                "whoever reaches %s, port %d, may use this server: it has no keys (--key, --key-file)", host, port
            )
        app = api.make(models, settings, metrics, keys)
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", loop="asyncio", log_config=None, access_log=False,
            server_header=False, timeout_keep_alive=30, timeout_graceful_shutdown=max(1, round(settings.grace)),
        )  # fmt: skip
        server = _Server(config, models)
        loading = threading.Thread(target=server.load, args=(lambda: on_ready(_address(host, port), [*models.all]),))
        loading.start()
        try:
            server.run(sockets=[listener])
        finally:
            models.close()
            loading.join()
    if server.failure is not None:
        raise server.failure
    if server.signal == signal.SIGINT:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """uvicorn, but for signals: the first lets texts come to their end, a second one ends all at once."""

    def __init__(self, config: uvicorn.Config, models: Models) -> None:
        super().__init__(config)
        self._models = models
        self.signal: int | None = None  # the first that came
        self.failure: BaseException | None = None

    def load(self, on_ready: Callable[[], None]) -> None:
        """Load the models while /health says so; a failure ends the server."""
        try:
            self._models.load()
            on_ready()
        except BaseException as error:  # raised again where the server was started
            self.failure = error
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise them once more at its end, and the exit code be the signal's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal."""
        if self.signal is not None:
            self.force_exit = True
        self.signal = self.signal or sig
        self._models.leaving = self.should_exit = True


def all_keys(settings: Serving) -> list[str]:
    """Those of the settings and of the file that they name. Raises UserError."""
    keys, origin = list(settings.keys), "serving.keys"
    if settings.key_file:
        with reporting_os_errors(f"read the keys in {settings.key_file}"):
            text = Path(settings.key_file).expanduser().read_text("utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines()]
        keys += [line for line in lines if line and not line.startswith("#")]
        origin = settings.key_file
        if not keys:
            raise UserError(
                "could not start the server",
                f"{origin} has no key",
                "write one in it, or leave --key-file out",
                EXIT_USAGE,
            )
    for key in keys:
        if not (key.isascii() and key.isprintable() and key and " " not in key):
            raise UserError(
                "a key cannot be used",
                "it has spaces or characters that a header of HTTP cannot have",
                f"use letters, digits and signs of ASCII only (in {origin})",
                EXIT_USAGE,
            )
    return keys


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except socket.gaierror as error:
        raise UserError(
            f"could not listen at {host}", str(error.strerror), "give --host an address of this machine", EXIT_USAGE
        ) from error
    except OSError as error:
        problem = from_os_error(error, f"listen at {host}, port {port}")
        fix = "use another --port (0: any that is free), or another --host"
        raise UserError(problem.what, problem.why, fix, problem.exit_code) from error


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
