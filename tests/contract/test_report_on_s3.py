"""A run's page on S3: read from the bucket, and written beside the model."""

from nanosft.report.stage import write_beside
from nanosft.store import open_store
from tests.reporting import put_road


def test_a_page_is_made_of_a_bucket_and_put_beside_the_model(bucket: str) -> None:
    run = put_road(f"{bucket}/road")
    assert write_beside(run.uri, made=f"{bucket}/road/evaluation") == f"{run.uri}/report.html"
    page = open_store(run.uri).read("report.html").decode()
    assert f"nanosft chat --model {run.uri}" in page
    assert "0.750 [0.500, 1.000]" in page
    assert " UTC" in page  # when the manifests were put
