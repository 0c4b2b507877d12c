"""The lab's switch: a stand-in for FreeSWITCH 1.10.12 with the streaming mod_audio_fork.

It speaks FreeSWITCH's SIP, RTP, event socket and mod_audio_fork protocols as far as calls of this project need, and keeps
FreeSWITCH's names: a channel is a call leg, a session runs its applications, a media bug listens in. Started as
``python -m lab.switch --config PATH --worker NAME``.
"""
