"""The control plane: the life of a call over FreeSWITCH's event socket, on gevent."""
