"""What a notebook shows, in a form in which two passes can be compared.

Only what nbval leaves out is left out: the identity of a live view, which no saved
notebook can have. Unlike nbval this keeps the order of the outputs, the streams'
names and the execution counts.
"""

import nbformat

LIVE_VIEW = "application/vnd.jupyter.widget-view+json"


def read(path):
    """Return the notebook at `path`."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    """Return the cells that a pass executes."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def shown(notebook):
    """Return what each code cell shows, output by output."""
    return {cell.id: [cell.execution_count, *_outputs(cell)] for cell in code_cells(notebook)}


def _outputs(cell):
    seen = []
    for output in cell.outputs:
        if output.output_type == "stream":
            # Where the live view stood between two lines of one stream, it is one stream still.
            if seen and seen[-1][:2] == ["stream", output.name]:
                seen[-1][2] += output.text
            else:
                seen.append(["stream", output.name, output.text])
        elif output.output_type == "error":
            seen.append(["error", output.ename, output.evalue])
        elif data := {kind: text for kind, text in output.data.items() if kind != LIVE_VIEW}:
            seen.append([output.output_type, data, dict(output.metadata)])
    return seen
