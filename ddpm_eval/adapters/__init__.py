"""The models of other projects as models that can be measured, one project a file.

None of the projects is imported: an adapter needs the object that it is given, and nothing else.
"""
