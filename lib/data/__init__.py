"""The data of a study: annotations, splits, index, videos, poses."""
