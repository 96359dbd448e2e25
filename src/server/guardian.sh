# The last will of an embedded server; see guardian.rs.
# $1: the directory to remove at the end, or nothing. Standard input: a line with a process id whenever it changes, 0 for
# none, and its end when the owner is gone.

# It is the end of the input that ends this process, no signal meant for the terminal's programs.
trap '' HUP INT TERM

pid=0
while read -r line; do pid=$line; done

alive() {
    kill -0 "$pid" 2>/dev/null || return 1
    # If no process collects orphans (containers without an init) a dead process remains visible as a zombie.
    state=
    { read -r _ _ state _ <"/proc/$pid/stat"; } 2>/dev/null
    [ "$state" != Z ]
}

# patience SIGNAL SECONDS: asks once a second, because a process that is just starting may not listen yet.
patience() {
    tenths=0
    while alive && [ "$tenths" -lt "$(($2 * 10))" ]; do
        [ "$((tenths % 10))" -ne 0 ] || kill -s "$1" "$pid" 2>/dev/null
        sleep 0.1
        tenths=$((tenths + 1))
    done
}

if [ "$pid" -gt 0 ]; then
    patience INT 60  # fast shutdown
    patience QUIT 10 # immediate shutdown: the next start recovers
    patience KILL 10
fi

# Twice: children of a killed postmaster may write for one more moment.
[ -z "$1" ] || rm -rf -- "$1" 2>/dev/null || { sleep 1; rm -rf -- "$1"; }
