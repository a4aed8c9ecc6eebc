import numpy as np
import pytest

from lib.data.layouts import LAYOUTS

every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def mirrored(layout):
    """The joint that stands in each joint's place in a mirror."""
    order = np.arange(len(layout.joints))
    left, right = np.array(layout.pairs).T
    order[left], order[right] = right, left
    return order


def test_sizes_are_those_of_the_published_layouts():
    sizes = {name: {part: where.stop - where.start for part, where in layout.parts.items()}
             for name, layout in LAYOUTS.items()}  # fmt: skip
    assert sizes == {
        "openpose-54": {"body": 12, "left": 21, "right": 21},
        "hands-42": {"left": 21, "right": 21},
        "body-hands": {"body": 12, "left": 21, "right": 21, "lips": 20},
    }


def test_body_is_joints_0_to_7_and_15_to_18_of_body_25():
    assert LAYOUTS["openpose-54"].joints[:12] == (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
        "left_wrist", "right_eye", "left_eye", "right_ear", "left_ear",
    )  # fmt: skip


@every_layout
def test_parts_cover_every_joint_once_and_in_order(layout):
    covered = [joint for where in layout.parts.values() for joint in range(where.start, where.stop)]
    assert covered == list(range(len(layout.joints)))
    assert len(set(layout.joints)) == len(layout.joints)


@every_layout
def test_each_hand_begins_with_its_wrist_and_has_only_its_own_joints(layout):
    for side in ("left", "right"):
        names = layout.joints[layout.parts[side]]
        assert names[0] == f"{side}_hand_wrist"
        assert all(name.startswith(side) for name in names)


@every_layout
def test_pairs_hold_every_left_and_right_joint_once(layout):
    names = [(layout.joints[left], layout.joints[right]) for left, right in layout.pairs]
    assert all(left.replace("left", "right") == right for left, right in names)
    sided = {joint for joint in layout.joints if joint.startswith(("left", "right"))}
    assert sorted(joint for pair in names for joint in pair) == sorted(sided)


@every_layout
def test_edges_join_two_different_joints_and_none_stands_twice(layout):
    assert all(0 <= end < len(layout.joints) for edge in layout.edges for end in edge)
    assert len({frozenset(edge) for edge in layout.edges}) == len(layout.edges)
    assert all(a != b for a, b in layout.edges)


@every_layout
def test_a_mirror_maps_the_skeleton_onto_itself(layout):
    place = mirrored(layout)
    edges = {frozenset(edge) for edge in layout.edges}
    assert {frozenset((place[a], place[b])) for a, b in layout.edges} == edges


@pytest.mark.parametrize(("name", "trees"), [("openpose-54", 1), ("hands-42", 2)])
def test_skeleton_is_one_tree_for_a_body_and_one_for_each_lone_hand(name, trees):
    layout = LAYOUTS[name]
    group = list(range(len(layout.joints)))
    for a, b in layout.edges:
        group = [group[a] if member == group[b] else member for member in group]
    assert len(set(group)) == trees
    assert len(layout.edges) == len(layout.joints) - trees  # no circles


def test_fingers_are_chains_from_the_wrist():
    hand = LAYOUTS["hands-42"]
    joined = {b: a for a, b in hand.edges}
    wrist = hand.parts["right"].start
    assert [joined[wrist + tip] - wrist for tip in (4, 8, 12, 16, 20)] == [3, 7, 11, 15, 19]
    assert [joined[wrist + base] for base in (1, 5, 9, 13, 17)] == [wrist] * 5
