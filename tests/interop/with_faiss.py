"""Nearest neighbours by faiss: ARTIFACT TEXTS OUT KIND; the vectors lie beside TEXTS."""

import sys

import faiss
from neighbours import DEPTH, read, write

_, texts, out, kind = sys.argv[1:]
documents, queries = read(texts, kind)
if kind == "float":
    index = faiss.IndexFlatIP(documents.shape[1])
elif kind == "int8":  # the codes as they are: no training, no scale
    index = faiss.IndexScalarQuantizer(
        documents.shape[1], faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
    )
    documents, queries = documents.astype("float32"), queries.astype("float32")
else:
    index = faiss.IndexBinaryFlat(8 * documents.shape[1])
index.add(documents)
write(index.search(queries, DEPTH)[1], texts, kind, out)
