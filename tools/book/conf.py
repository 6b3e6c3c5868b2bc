"""Sphinx's configuration of the book; tools/book/build.py prepares the sources and sets the language."""

import json
import logging
import os

import jieba

jieba.setLogLevel(logging.WARNING)
project = "stackbook"
author = "stackbook"
copyright = ""
extensions = ["myst_nb"]
root_doc = "README"
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # no page has widgets, and none loads anything from elsewhere
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header", "misc.highlighting_failure"]
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["stackbook.css"]
html_theme = "sphinx_book_theme"
html_title = "stackbook"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_sidebars = {"**": ["navbar-logo.html", "language.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
html_context = {"other_languages": json.loads(os.environ.get("STACKBOOK_EDITIONS", "[]"))}
