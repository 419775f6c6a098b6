"""Settings of the documentation site, which `make docs` builds into build/docs."""

import importlib.util
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "hiwae_jax"
author = "The hiwae_jax authors"
copyright = "The hiwae_jax authors, Apache 2.0"
html_title = "hiwae_jax"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "links_out_of_docs",
    "public_names",
]
exclude_patterns = ["_extensions", "_static"]
templates_path: list[str] = []
highlight_language = "none"
nitpicky = False

# Markdown. Headings have the anchors that code-hosting sites give them.
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
suppress_warnings = ["myst.header"]

# Notebooks run while the site is built. Unchanged ones come from the cache.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / ".cache" / "docs")
nb_execution_timeout = 120  # seconds a cell
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # of tqdm, in a kernel without widgets

# The reference. Docstrings write code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
python_display_short_literal_types = True
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Gradients", ("Choosing", "params_style")]
toc_object_entries_show_parents = "hide"

# Pages.
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# MathJax in one file that needs no network, copied from a package.
mathjax = importlib.util.find_spec("mathjax")
if mathjax is not None and mathjax.origin is not None:
    html_static_path.append(str(pathlib.Path(mathjax.origin).parent / "static" / "mathjax" / "es5" / "tex-svg.js"))
    mathjax_path = "tex-svg.js"
