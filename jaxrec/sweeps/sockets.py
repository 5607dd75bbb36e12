"""A desk at a socket, and the way there: a file in the sweep's folder, for its owner alone, has the place and a key."""

import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from pathlib import Path

from jaxrec.sweeps.desk import Desk
from jaxrec.sweeps.remote import Carry
from jaxrec.sweeps.store import WAIT

ANSWER = 2 * WAIT  # seconds for an answer; the desk may have to wait for its turn at the ledger
QUEUE = 256  # workers that come at the same time


class Open:
    """Lets ``desk`` answer at ``host``, and at no other address of this machine, until it is closed."""

    def __init__(self, desk: Desk, host: str, file: Path):
        self._desk, self._file, self._key = desk, file, secrets.token_bytes(32)
        self._server = socket.create_server((host, 0), backlog=QUEUE)
        about = {"host": host, "port": self._server.getsockname()[1], "key": self._key.hex()}
        temporary = file.with_name(f".{file.name}.tmp")
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as written:
            json.dump(about, written)
        temporary.replace(file)
        threading.Thread(target=self._accept, name="jaxrec-desk", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection = Connection(self._server.accept()[0].detach())
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        """Who has the key is answered until it goes; whoever stays silent keeps only this thread."""
        with connection, suppress(OSError, EOFError, AuthenticationError):
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            while True:
                connection.send_bytes(self._desk.ask(connection.recv_bytes().decode()).encode())

    def close(self) -> None:
        self._file.unlink(missing_ok=True)
        self._server.shutdown(socket.SHUT_RDWR)  # else whoever accepts would wait on
        self._server.close()


def carrier(file: Path) -> Carry:
    """The way to the desk that ``file`` tells of."""
    about = json.loads(file.read_text(encoding="utf-8"))
    try:
        connection = Client((about["host"], about["port"]), family="AF_INET", authkey=bytes.fromhex(about["key"]))
    except AuthenticationError as error:
        raise ConnectionError(f"another process answers at {about['host']}:{about['port']}") from error

    def carry(question: str) -> str:
        connection.send_bytes(question.encode())
        if not connection.poll(ANSWER):
            raise TimeoutError(f"no answer from {about['host']} in {ANSWER:g} seconds")
        return connection.recv_bytes().decode()

    return carry
