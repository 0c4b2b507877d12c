"""All scenes that are played on both switches."""

from tests.freeswitch import scenes_ends, scenes_fork, scenes_legs, scenes_refer, scenes_sound, scenes_switch
from tests.freeswitch.story import RECORDED, SCENES, Story, play

__all__ = ["RECORDED", "SCENES", "Story", "play"]

_ = (scenes_fork, scenes_ends, scenes_sound, scenes_legs, scenes_refer, scenes_switch)
