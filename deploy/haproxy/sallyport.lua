-- HAProxy asks Sallyport about each request. docs/fronts/haproxy.md has the configuration
-- around this file; it needs HAProxy 2.6 or later, and no other Lua.
--
--   http-request lua.sallyport http://127.0.0.1:4182/forward if !own
--   http-request deny deny_status 503 if !own !{ var(txn.sallyport) -m str passed }
--
-- The action sends Sallyport the header of the request, without its body, and then does one
-- of three things:
--
--   200            it sets in the request what Sallyport says, and txn.sallyport to "passed"
--   302, 401, 403  it gives Sallyport's answer to the client
--   anything else  it answers 503 and writes the reason to the log
--
-- The second line is needed: HAProxy goes on with a request whose action has failed, if only
-- because Lua had used up its memory or its time.

-- How long Sallyport may be silent, in milliseconds. HAProxy asks up to four times.
local PATIENCE = 5000

-- These are about one connection and its bytes. They are never passed on in either direction.
local TRANSPORT = {
  ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true,
  ["http2-settings"] = true, ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true,
  ["trailer"] = true, ["transfer-encoding"] = true,
}

-- By these, proxies tell apps who somebody is and what they asked for. From a client they are
-- lies, in whatever spelling.
local PROXIES_SAY = { "^forwarded$", "^x%-forwarded%-", "^x%-original%-", "^x%-rewrite%-", "^x%-sallyport%-",
  "^x%-auth%-request%-", "^remote%-", "^x%-real%-ip$", "^x?%-?client%-ip$", "^true%-client%-ip$", "^proxy$",
  "^x%-host$", "^x%-http%-host%-override$", "^x?%-?script%-name$", "^x?%-?path%-info$" }

-- But HAProxy sets these itself, before the action.
local FORWARDED = { ["x-forwarded-for"] = true, ["x-forwarded-host"] = true, ["x-forwarded-proto"] = true }

-- fold returns a header name as CGI and its like read it: X_Forwarded.User is
-- X-Forwarded-User to them.
local function fold(name)
  return (name:lower():gsub("[^a-z0-9]", "-"))
end

-- list returns the lines of a header, which HAProxy counts from 0, as HAProxy wants them.
local function list(lines)
  local out = {}
  for i = 0, #lines do
    out[i + 1] = lines[i]
  end
  return out
end

-- proxies_say reports whether a header is one of PROXIES_SAY.
local function proxies_say(name)
  local folded = fold(name)
  for _, pattern in ipairs(PROXIES_SAY) do
    if folded:find(pattern) then
      return true
    end
  end
  return false
end

-- question returns the header that Sallyport is asked with.
local function question(txn)
  local header = {}
  local request = txn.http:req_get_headers()
  for name, lines in pairs(request) do
    if not TRANSPORT[name] and not proxies_say(name) then
      header[name] = list(lines)
    end
  end
  if header["cookie"] then -- HTTP/2 may split it (RFC 9113 section 8.2.3)
    header["cookie"] = { table.concat(header["cookie"], "; ") }
  end
  header["x-forwarded-method"] = { txn.sf:method() }
  header["x-forwarded-proto"] = { txn.sf:ssl_fc() == "1" and "https" or "http" }
  header["x-forwarded-host"] = request["host"] and list(request["host"])
  header["x-forwarded-uri"] = { txn.sf:pathq() } -- as it is on the wire
  header["x-forwarded-for"] = { txn.sf:src() }
  return header
end

-- once returns the value of a header that an answer must have, and have once. HAProxy lets
-- control characters pass; they have no place in a header (RFC 9110 section 5.5).
local function once(answer, name)
  local lines = answer.headers[name]
  if not lines or lines[1] then
    error(name .. " is not there once")
  end
  if lines[0]:find("[\0-\8\10-\31\127]") then
    error(name .. " has control characters")
  end
  return lines[0]
end

-- told returns what an answer sets: by folded name, each name as it is written and its value.
local function told(answer)
  local all = {}
  for name in once(answer, "x-sallyport-names"):gmatch("[^, ]+") do
    if TRANSPORT[name] or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") or all[fold(name)] then
      error("X-Sallyport-Names is not a list of identity headers")
    end
    all[fold(name)] = { name = name, value = once(answer, name) }
  end
  if not all["cookie"] or not all["x-sallyport-assertion"] then
    error("this is no answer of Sallyport")
  end
  return all
end

-- pass makes of the request what the app is to get. A name without a value is only removed,
-- or the client's own value would stay.
local function pass(txn, answer)
  if answer.body ~= "" then
    error("a 200 with a body")
  end
  local http, all = txn.http, told(answer)
  local request = http:req_get_headers()
  for name in pairs(request) do
    if all[fold(name)] or (proxies_say(name) and not FORWARDED[name]) then
      http:req_del_header(name)
    end
  end
  -- A client's Connection could name headers that the app's server then removes.
  http:req_del_header("connection")
  if request["upgrade"] then
    http:req_set_header("connection", "upgrade")
  end
  for _, header in pairs(all) do
    if header.value ~= "" then
      http:req_set_header(header.name, header.value)
    end
  end
  -- A header that does not fit is left out without a word.
  request = http:req_get_headers()
  for _, header in pairs(all) do
    local lines = request[header.name] or { [0] = "" }
    if lines[0] ~= header.value or lines[1] then
      error("the request has no room for " .. header.name .. ": raise tune.maxrewrite")
    end
  end
end

-- refusal returns Sallyport's answer for the client.
local function refusal(txn, answer)
  if answer.status == 302 then
    once(answer, "location")
  end
  local header = {}
  for name, lines in pairs(answer.headers) do
    if not TRANSPORT[name] then
      header[name] = list(lines)
    end
  end
  return txn:reply{ status = answer.status, headers = header, body = answer.body }
end

-- ask returns what the client is to be answered; nil: the request may pass.
local function ask(txn, url)
  local answer = core.httpclient():get{ url = url, headers = question(txn), timeout = PATIENCE }
  if tonumber(once(answer, "content-length")) ~= #answer.body then
    error("the answer ends early")
  end
  if answer.status == 200 then
    return pass(txn, answer)
  end
  if answer.status == 302 or answer.status == 401 or answer.status == 403 then
    return refusal(txn, answer)
  end
  error("status " .. tostring(answer.status))
end

local function sallyport(txn, url)
  local asked, reply = pcall(ask, txn, url)
  if asked and not reply then
    txn:set_var("txn.sallyport", "passed")
    return
  end
  if not asked then
    txn:Warning("sallyport: " .. tostring(reply))
    reply = txn:reply{ status = 503, headers = { ["cache-control"] = { "no-store" } } }
  end
  txn:done(reply)
end

core.register_action("sallyport", { "http-req" }, sallyport, 1)
