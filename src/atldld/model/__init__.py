"""What a section dataset is: records, spaces and matrices. No input or output, no pixels."""
