"""Icons of five desktop themes of Debian: the same six kinds of picture in five styles.

The themes (packages ``oxygen-icon-theme``, ``tango-icon-theme``, ``gnome-icon-theme``,
``faenza-icon-theme``, ``elementary-xfce-icon-theme``) are GPL, LGPL or in the public domain. They
are not shipped: ``make data-icons`` installs them and writes ``icons.npz`` with this module,
``python -m fedlabels.data.icons [FOLDER]``. The reader reads that file.

Icons of 32 and of 48 pixels are taken, laid over white and scaled to 32; files of equal content
count once. An icon's name decides the split, so that both sizes, and the same icon in all themes,
are in one split.
"""

from fedlabels.data.icons.reader import read_icons

__all__ = ["read_icons"]
