"""How Sphinx builds the documentation. Nothing is fetched from a network: `make docs` works without one."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from generate import write_references  # noqa: E402

from cnnsens_bench import __version__  # noqa: E402

project = "cnnsens_bench"
copyright = "The cnnsens_bench contributors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["reference/generated"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"cnnsens_bench {release}"
html_copy_source = False
default_role = "code"
napoleon_google_docstring = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"

write_references(Path(__file__).parent / "reference" / "generated")
