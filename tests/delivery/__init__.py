"""Delivery: sessions on real sockets, judged and guarded."""
