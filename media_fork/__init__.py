"""The media plane: mod_audio_fork legs on one side, a Realtime model on the other, on asyncio."""
