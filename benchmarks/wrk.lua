-- Posts the lines of a file, one after the other, round and round; ends with one line of JSON.
-- Run as: wrk ... -s wrk.lua URL -- FILE

local requests = {}
local last = 0

function init(args)
  local headers = { ["Content-Type"] = "application/json" }
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, line)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local bins = {}
  for i = 1, #latency do
    local us, count = latency(i)
    bins[i] = string.format("[%d,%d]", us, count)
  end
  local e = summary.errors
  io.write(string.format(
    '{"us":%d,"requests":%d,"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d},"bins":[%s]}\n',
    summary.duration, summary.requests, e.connect, e.read, e.write, e.status, e.timeout,
    table.concat(bins, ",")
  ))
end
