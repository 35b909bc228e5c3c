"""Plain cells: what a cell that is no workflow leaves behind, compared, kept and put back.

Invariant: what can't be compared or kept is refused with its path and a reason; nothing is
passed over. Looking changes no value, and no library is imported that the user did not import.
"""
