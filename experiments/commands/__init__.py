"""The commands of the command line, one a file: typed parameters, one call, print.

A file's ``command`` is made by `experiments.commands.options.command_with`: its function takes one frozen
dataclass, whose fields declare the command's arguments and options.
"""
