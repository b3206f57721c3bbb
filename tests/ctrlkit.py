# SPDX-License-Identifier: BSD-3-Clause
"""ctrlkit - a client of a TPM's control channel, and of the data channel that it hands over."""
import socket
import struct

from faultkit import DEADLINE, Problem

INIT, SHUTDOWN, STORE_VOLATILE, GET_STATEBLOB, SET_STATEBLOB, STOP, SET_DATAFD, SET_BUFFERSIZE = \
    2, 3, 0xa, 0xc, 0xd, 0xe, 0x10, 0x11
LOCK_STORAGE = 0x13
PERMANENT, VOLATILE, SAVESTATE = 1, 2, 3
NO_BLOB = 0x800


class Client:
    def __init__(self, path):
        self.ctrl = socket.socket(socket.AF_UNIX)
        self.ctrl.settimeout(DEADLINE)
        self.ctrl.connect(path)
        self.data, theirs = socket.socketpair()
        self.data.settimeout(DEADLINE)
        socket.send_fds(self.ctrl, [struct.pack(">I", SET_DATAFD)], [theirs.fileno()])
        theirs.close()
        self.result("SET_DATAFD", self.get(self.ctrl, 4))

    def close(self):
        self.ctrl.close()
        self.data.close()

    @staticmethod
    def get(sock, size):
        out = b""
        while len(out) < size:
            more = sock.recv(size - len(out))
            if not more:
                raise ConnectionResetError("closed")
            out += more
        return out

    @staticmethod
    def result(what, reply):
        if reply[:4] != bytes(4):
            raise Problem("%s: %#x" % (what, struct.unpack_from(">I", reply)[0]))
        return reply[4:]

    def request(self, code, body=b"", reply=4):
        self.ctrl.sendall(struct.pack(">I", code) + body)
        return self.result("request %#x" % code, self.get(self.ctrl, reply))

    def init(self, delete=False):
        self.request(INIT, struct.pack(">I", delete))

    def stop(self):
        self.request(STOP)

    def reset(self):
        """What QEMU does when its machine is reset."""
        self.stop()
        self.request(SET_BUFFERSIZE, bytes(4), 16)
        self.init()

    def shutdown(self):
        self.request(SHUTDOWN)

    def lock_storage(self, retries):
        self.request(LOCK_STORAGE, struct.pack(">I", retries))

    def store_volatile(self):
        self.request(STORE_VOLATILE)

    def get_blob(self, kind):
        """None: there is none."""
        self.ctrl.sendall(struct.pack(">IIII", GET_STATEBLOB, 1, kind, 0))
        result, _, left, length = struct.unpack(">IIII", self.get(self.ctrl, 16))
        if result == NO_BLOB:
            return None
        if result or left != length:
            raise Problem("GET_STATEBLOB %d: %#x, %d of %d" % (kind, result, length, left))
        return self.get(self.ctrl, length)

    def set_blob(self, kind, blob):
        self.request(SET_STATEBLOB, struct.pack(">III", 0, kind, len(blob)) + blob)

    # -- TPM commands
    def send(self, command):
        self.data.sendall(command)

    def response(self):
        head = self.get(self.data, 10)
        size, code = struct.unpack(">II", head[2:])
        return code, self.get(self.data, size - 10)

    def tpm(self, command):
        self.send(command)
        return self.response()
