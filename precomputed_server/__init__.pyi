from converter import ConvertOptions as ConvertOptions
from converter import Summary as Summary
from converter import convert as convert
from converter import source_options as source_options

__version__: str
