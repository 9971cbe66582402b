"""Resources by ARM id."""

import pytest

from emulator.store import Store, resource_type

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.X/workspaces/w"


@pytest.fixture
def store() -> Store:
    store = Store()
    store.put(f"{WORKSPACE}/jobs/B", {"properties": {"status": "Starting"}})
    store.put(f"{WORKSPACE}/jobs/a", {"properties": {}})
    store.put(f"{WORKSPACE}/jobs/a/parts/1", {"properties": {}})
    return store


def test_ids_compare_without_case_and_keep_theirs(store: Store) -> None:
    found = store.get(f"{WORKSPACE}/JOBS/b".upper())
    assert found is not None
    assert (found["id"], found["name"]) == (f"{WORKSPACE}/jobs/B", "B")
    assert found["type"] == "Microsoft.X/workspaces/jobs"


def test_what_is_handed_out_is_a_copy(store: Store) -> None:
    found = store.get(f"{WORKSPACE}/jobs/B")
    assert found is not None
    found["properties"]["status"] = "Completed"
    store.children(f"{WORKSPACE}/jobs")[0]["properties"]["status"] = "Failed"
    again = store.get(f"{WORKSPACE}/jobs/B")
    assert again is not None
    assert again["properties"]["status"] == "Starting"


def test_changed_changes_the_resource_itself(store: Store) -> None:
    with store.changed(f"{WORKSPACE}/jobs/b") as job:
        job["properties"]["status"] = "Completed"
    found = store.get(f"{WORKSPACE}/jobs/B")
    assert found is not None
    assert found["properties"]["status"] == "Completed"
    with pytest.raises(KeyError), store.changed(f"{WORKSPACE}/jobs/none"):
        pass


def test_children_are_those_directly_below(store: Store) -> None:
    assert [job["name"] for job in store.children(f"{WORKSPACE}/jobs/")] == ["B", "a"]


def test_a_deleted_resource_takes_its_children_along(store: Store) -> None:
    assert store.delete(f"{WORKSPACE}/jobs/A")
    assert not store.delete(f"{WORKSPACE}/jobs/A")
    assert store.get(f"{WORKSPACE}/jobs/a/parts/1") is None
    assert store.get(f"{WORKSPACE}/jobs/B")


def test_putting_again_keeps_when_it_was_made(store: Store) -> None:
    made = store.put(f"{WORKSPACE}/jobs/c", {})["systemData"]
    again = store.put(f"{WORKSPACE}/jobs/C", {})["systemData"]
    assert again["createdAt"] == made["createdAt"]
    assert again["lastModifiedAt"] > made["lastModifiedAt"]


def test_the_type_leaves_the_names_out() -> None:
    assert resource_type(f"{WORKSPACE}/a/1/b/2") == "Microsoft.X/workspaces/a/b"
