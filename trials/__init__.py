"""What is done to Homeport on its worst day: `make soak`, `make fuzz`, `make secrets`.

Each trial starts what it needs on 127.0.0.1, prints one table, writes outputs/trials/<trial>.json
and ends with 4 where a target is missed. Nothing in train/, serve/, scripts/ or emulator/ imports
this room.
"""
