import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """As a worker has beside another on two cores: with other threads the last bits differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
