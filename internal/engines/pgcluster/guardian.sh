# Runs a Postgres server for the test binaries of one machine, and stops it when
# nobody has used it for a while. Users hold a shared lock on the users file; a
# lock ends with its process, however that ends, so nobody has to sign off.
postgres=$1 data=$2 users=$3 idle_limit=$4
"$postgres" -D "$data" &
pid=$!
trap 'kill -INT $pid 2>/dev/null' INT TERM
exec 9<"$users"
idle=0
while kill -0 "$pid" 2>/dev/null; do
  sleep 2
  if flock -n -x 9; then
    idle=$((idle + 2))
    # The lock is kept while the server stops: who comes now waits for it.
    [ "$idle" -ge "$idle_limit" ] && break
    flock -u 9
  else
    idle=0
  fi
done
kill -INT "$pid" 2>/dev/null
wait "$pid"
