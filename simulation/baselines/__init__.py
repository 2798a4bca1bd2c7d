"""Routers that people use, as policy shapes: their published decision rule and constants on our state and our engines.

They are not those products: state is as fresh as ours unless said otherwise, and no part of theirs but the rule is here.
Each is a scorer of the production pipeline, one file each.
"""
