"""The live view in a notebook: an anywidget and its JavaScript."""
