"""Views for people: holdings and deltas to lines of text.

All functions are pure: they read no clock, no file and no environment. ``Options`` says what the
terminal can show. Lines have no line end; text from the kernel and from processes is made safe.
"""
