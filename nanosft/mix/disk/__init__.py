"""The local disk: the run's directory (`workspace`), rows on their way (`spill`), and the objects of the `output`."""
