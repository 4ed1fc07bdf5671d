"""Sockets over netlink: sock_diag(7) dumps and destroy notices."""
