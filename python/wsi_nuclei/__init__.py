"""Every nucleus of a whole-slide H&E image: where it is, what type, what shape.

In: slides, and the folders that ``wsi-nuclei run`` wrote. Out: those folders as pandas, GeoPandas, dask, AnnData or
SpatialData. Nothing is computed here: the program finds the nuclei, its files hold them.

    >>> import wsi_nuclei as wn
    >>> result = wn.run("slide.svs", out="results")
    >>> result.table["type_name"].value_counts()
"""

from importlib.metadata import version as _version

from ._program import ProgramError
from ._result import Result, read
from ._run import run

__version__ = _version("wsi-nuclei")
__all__ = ["ProgramError", "Result", "__version__", "read", "run"]
