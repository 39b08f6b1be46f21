"""Byte streams of the operating system: terminals, with pyserial or without, and sockets."""

from __future__ import annotations

import importlib.util
import os
import select
import socket
import time
from typing import Any

from compiler.errors import ToolError
from sim.driver.framed import ByteStream
from sim.driver.port import DriverError, PortError

__all__ = ["PYSERIAL", "FileStream", "SerialStream", "SocketStream", "open_serial"]

PYSERIAL = "pip install 'eie-kit[board]'"
_WRITE_TIMEOUT = 10.0


class FileStream(ByteStream):
    """An open file descriptor of a terminal or a socket, which it owns and closes."""

    def __init__(self, number: int) -> None:
        self.number = number
        os.set_blocking(number, False)

    def write(self, content: bytes) -> None:
        """Send all of it."""
        deadline = time.monotonic() + _WRITE_TIMEOUT
        while content:
            if not select.select([], [self.number], [], max(0.0, deadline - time.monotonic()))[1]:
                raise DriverError(f"the port takes no bytes within {_WRITE_TIMEOUT:g} s")
            try:
                content = content[os.write(self.number, content) :]
            except OSError as error:
                raise DriverError(f"the port is gone: {error.strerror}") from None

    def read(self, most: int, timeout: float) -> bytes:
        """What has come within `timeout` seconds."""
        if not select.select([self.number], [], [], timeout)[0]:
            return b""
        try:
            found = os.read(self.number, most)
        except OSError as error:
            raise DriverError(f"the port is gone: {error.strerror}") from None
        if not found:
            raise DriverError("the port is gone: the other end has closed it")
        return found

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.number)


class SocketStream(FileStream):
    """A connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection.detach())


class SerialStream(ByteStream):
    """A serial line by pyserial, which knows every system and baud rate."""

    def __init__(self, line: Any) -> None:
        self.line = line

    def write(self, content: bytes) -> None:
        """Send all of it."""
        self.line.write_timeout = _WRITE_TIMEOUT
        try:
            self.line.write(content)
        except OSError as error:  # pyserial's errors are among them
            raise DriverError(f"the port is gone: {error}") from None

    def read(self, most: int, timeout: float) -> bytes:
        """What has come within `timeout` seconds."""
        self.line.timeout = timeout
        try:
            found = bytes(self.line.read(1))
            return found + bytes(self.line.read(min(most - 1, self.line.in_waiting))) if found else b""
        except OSError as error:
            raise DriverError(f"the port is gone: {error}") from None

    def close(self) -> None:
        """Close the line."""
        self.line.close()


def open_serial(path: str, baud: int) -> ByteStream:
    """A serial line with eight data bits, no parity, one stop bit.

    By pyserial if that is installed, else by the terminal of the operating system.

    Raises
    ------
    PortError
        There is no such device, it is no terminal, or it may not be used.
    ToolError
        This system, or this baud rate, needs pyserial, which is not installed.
    """
    if importlib.util.find_spec("serial") is not None:
        import serial

        try:
            return SerialStream(serial.Serial(path, baud))
        except (OSError, ValueError) as error:
            raise PortError(f"{path}: cannot be opened as a serial port ({error})") from None
    try:
        import termios
    except ImportError:
        raise ToolError(f"serial ports of this system need pyserial: {PYSERIAL}") from None
    speed = getattr(termios, f"B{baud}", None)
    if speed is None:
        raise ToolError(f"{baud} baud is no rate that this system knows by itself; with pyserial: {PYSERIAL}")
    try:
        number = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise PortError(f"{path}: cannot be opened as a serial port ({error.strerror})") from None
    try:
        control = termios.CS8 | termios.CREAD | termios.CLOCAL
        characters = termios.tcgetattr(number)[6]
        termios.tcsetattr(number, termios.TCSANOW, [0, 0, control, 0, speed, speed, characters])
        termios.tcflush(number, termios.TCIOFLUSH)
    except termios.error:
        os.close(number)
        raise PortError(f"{path}: is no serial port") from None
    return FileStream(number)
