"""The archive of recordings: what FreeSWITCH has written is encrypted, kept for its time, and purged.

    FOLDER/WORKER/incoming/CALL.N.wav   as FreeSWITCH writes it, with CALL.N.json, esl_app's note of it
    FOLDER/WORKER/kept/DAY/CALL.N.*.age encrypted, with CALL.N.json, the note as it is on record

The notes are :class:`tandem.rows.RecordingRecord`; esl_app writes those in incoming, all else is the archive's, a process of its
own beside esl_app's. Whatever a crash leaves lies in incoming, and is taken up by the next archive.
"""
