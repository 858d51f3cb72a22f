"""Sphinx configuration: one MyST source, built as HTML pages and as man pages (`make docs`)."""

from importlib.metadata import version as version_of

project = "srpha"
author = "the srpha contributors"
copyright = "the srpha contributors"
release = version = version_of("srpha")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"srpha {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["srpha.css"]

# (source without suffix, name of the page, description, authors, section); keep the pages listed in reference/index.md
man_pages = [
    ("reference/srpha", "srpha", "SRP high availability for Linux", [author], 1),
]
man_make_section_directory = False
man_show_urls = True
