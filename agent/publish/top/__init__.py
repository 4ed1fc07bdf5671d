"""The live screen.

``screen``, ``grid``, ``dialogs`` and ``setup`` know Textual; ``publisher``, ``sources``, ``signal``
and ``saving`` use files, tasks or the clock. The other modules are pure: time is an argument, in
seconds since the Unix epoch.
"""
