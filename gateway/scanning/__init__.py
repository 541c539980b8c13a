"""Looking into messages for policy, whatever their size, without holding up anybody's mail.

1. ``scanners``  small messages at once, large ones in a process of its own, with limits on time and memory
2. ``child``     that process: reads a message from a pipe, answers, waits for the next
3. ``frames``    how the two talk
"""

from gateway.scanning.scanners import ScanBusy, Scanners

__all__ = ["ScanBusy", "Scanners"]
