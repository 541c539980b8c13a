"""Settings: the operator's ``gateway.yaml``, typed, with faults that name file, line and column.

1. ``source``   reads YAML into plain values and remembers where each of them stands
2. ``values``   what one setting can be: durations, sizes, files (and ``names``, ``networks``, ``secrets``)
3. ``model``    the whole model (sections in ``inbound``, ``outbound``, ``rooms``)
4. ``faults``   turns what the model objects to into plain words with a place
5. ``checks``   what holds between settings (``certificates``: whether their files can be used)
6. ``load``     all of it together
7. ``shares``   one process's part of limits that hold for the whole gateway
8. ``docs``     the reference and the commented sample, made from the model (``describe``: values in words)

Policy files are read one layer up: :func:`gateway.policy.bundle.load_all` reads both at once.
"""
