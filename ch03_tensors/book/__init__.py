"""What makes notebooks and pages of the lessons, finds lessons, and translates them. `python -m lessons` uses it.

pieces.py       a lesson as a row of pieces: text, source, examples
find.py         lessons by number, function, torch name or title
translate.py    the Chinese texts: locale/zh_CN/LC_MESSAGES/lessons.po
notebook.py     a lesson as a notebook
web.py          lessons and Markdown files as pages that open from a folder
"""
