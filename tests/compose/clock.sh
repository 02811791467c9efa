# In the image of the scene clock-skew (clock.Dockerfile): programs that bash starts have the clock that a file of their
# container says, as `+7200` seconds; without the file, the machine's. The file is in the node's volume, so it outlives a
# restart, and is read anew each second.
export FAKETIME_TIMESTAMP_FILE=/var/lib/provost/clock-$HOSTNAME FAKETIME_CACHE_DURATION=1
# Clocks that nobody can set go on as they are: waits are measured by them.
export FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1
export LD_PRELOAD=/opt/clock/libfaketime.so.1
