"""Made-up files of Allen's grid service."""

import io
import zipfile

HEADER = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "Offset = 0 0 0\nElementSpacing = 200 200 200\nDimSize = 67 41 58\nElementType = {kind}\n"
    "ElementDataFile = {name}.raw\n"
)


def description(dataset_id, space):
    return (
        f'<?xml version="1.0"?>\n<section-data-set><id>{dataset_id}</id>'
        f"<reference-space-id>{space}</reference-space-id>"
        "<products><product><id>1</id></product></products></section-data-set>"
    )


def zipped_grid(volumes, dataset_id=7, space=10, described=True):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if described:
            archive.writestr("data_set.xml", description(dataset_id, space))
        for name, values in volumes.items():
            archive.writestr(f"{name}.mhd", HEADER.format(kind="MET_FLOAT", name=name))
            archive.writestr(f"{name}.raw", values.astype("<f4").tobytes(order="F"))
    return buffer.getvalue()
