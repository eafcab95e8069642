"""Local copies of published data sets, in the layouts in which people have them.

originals   what each task's original download calls its folder, files and columns: a table
places      which files of data_dir hold a split
plain_tsv   GLUE's TSV, where quotes are text
msr         MRPC's files before GLUE cut them
nested      rows from the nested objects of SuperGLUE and SQuAD
local_copy  reads a split from what was found, with the hub's columns
"""

from seq2seq.data.layouts.local_copy import local_rows, with_columns

__all__ = ["local_rows", "with_columns"]
