"""Answers that tests share: an aggregate with every type of field, and the variants."""

from typing import Any

import pytest

EVERY_TYPE = """
Everything:
  events: state
  letter: string(1)
  code: string?
  essay: string(1000)
  note: text
  remark: text?
  quantity: integer
  offset_by: integer?
  rate: decimal(12,2)
  share: decimal(38,38)?
  points: decimal(5,0)
  price: money
  discount: money?
  active: boolean
  archived: boolean?
  due_on: date
  paid_on: date?
  shipped_at: datetime
  seen_at: datetime?
  customer_id: uuid
  parent_id: uuid?
  kind: enum(small|large|extra_large)
  colour: enum(red|green)?
"""

THREE_AGGREGATES = """
Customer:
  name: string(120)
  level: enum(bronze|silver|gold) = bronze
LoyaltyPoint:
  customer: Customer
  points: integer
  reason: text?
  sources: [{name: string(80), points: integer}]
  reminder: none
Category:
  status: none
  events: state
  title: string(80)
  rate: decimal(5,2)?
"""

# Every rule of a field: unique values, defaults, child entities, and references to an aggregate that comes later.
EVERY_RULE = """
Order:
  events: state
  number: string(40) unique
  external_id: uuid unique
  customer: Customer
  payer: Customer?
  priority: integer = 1
  discount: decimal(5,2) = -1.5
  channel: enum(web|phone) = web
  remark: text? = none yet
  lines:
    - sku: string(40)
      quantity: integer = 1
      price: money
      weight: decimal(8,3)?
      kind: enum(new|used)? = used
      due_on: date?
  notes: [{words: text, author_id: uuid, written_at: datetime, public: boolean}]
Customer:
  number: string(12) unique
  country: Country
Country:
  status: none
  events: state
  code: string(2) unique
  rank: integer unique
  active: boolean = true
"""

# The longest names that the questions allow: with these names, a test finds a generated line that is too long.
LONGEST = """
{a}:
  {f}_string: string(1000)?
  {f}_flavour: enum(one|two)?
  {f}_choice: enum(one|two)
  {f}_number: decimal(38,38)?
  {f}_amount: money?
  {f}_moment: datetime?
  {f}_related: uuid?
  {f}_unique: string(40) unique
  {f}_ref: {c}?
  {f}_default: string(1000)? = {w}
  {f}_value: enum(one|{v})? = {v}
{c}:
  status: none
  name: text
  {f}_par: {d}
{d}:
  status: none
  name: text
{e}:
  parties: [{{{f}_kind: enum(one|{v})? = {v}, {f}_money: money?, {f}_number: decimal(38,38)?, {f}_text: string = {w}}}]
""".format(a="A" + "b" * 29, f="f" * 22, c="C" + "d" * 29, d="D" + "e" * 29, e="E" + "g" * 23, w="w" * 30, v="v" * 40)

EDITORS = {"editor": "vscode", "dev_container": "yes"}
EVERY_PART = {"chassis_parts": "[traces, shell, lists, schedules, republish, overview, neighbours, idempotency]"}

# Every messaging style on every broker, with names and fields that differ as much as possible. Half of the variants have
# identity, as a new service has by default.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {"service_name": "billing", "ci": "both"},
    "short": {
        "service_name": "hr",
        "ci": "github",
        "owner": "@acme/people",
        "platform_team": "@acme/platform",
        "messaging_style": "events",
        "broker": "nats",
        "auth": "none",
    },
    "many-words": {
        "service_name": "customer-loyalty-points",
        "ci": "gitlab",
        "domain": "customer-relations",
        "aggregates": THREE_AGGREGATES,
        "limited_by_monolith": "yes",
        "separate_team": "yes",
        "ready_for_consistency": "no",
        "messaging_style": "events-and-queues",
        "broker": "kafka",
    },
    "every-type": {
        "service_name": "catalog",
        "aggregates": EVERY_TYPE,
        "ci": "both",
        "messaging_style": "events-and-queues",
        "broker": "nats",
    },
    "approved": {
        "service_name": "approvals",
        "aggregates": "Loan: {amount: money, rate: decimal(5,2)}\nTestimonial: {quote: text}",
        "messaging_style": "events",
        "broker": "kafka",
        "auth": "none",
    },
    "events-rabbitmq": {
        "service_name": "orders",
        "aggregates": "Order: {events: state, customer_id: uuid, total: money, note: text?}",
        "messaging_style": "events",
        "broker": "rabbitmq",
        "auth": "none",
    },
    "queues-kafka": {"service_name": "ticketing", "messaging_style": "queues", "broker": "kafka", "auth": "none"},
    "queues-rabbitmq": {
        "service_name": "bookings",
        "messaging_style": "queues",
        "broker": "rabbitmq",
        "auth": "none",
    },
    "queues-nats": {
        "service_name": "shipping",
        "aggregates": "Shipment: {audit: caller, address: text, parcels: [{code: string(20), weight: decimal(8,3)}]}",
        "messaging_style": "queues",
        "broker": "nats",
        "sagas": "postgres",
        "auth": "oidc",
    }
    | EDITORS
    | EVERY_PART,
    "both-rabbitmq": {
        "service_name": "sales",
        "aggregates": EVERY_RULE,
        "messaging_style": "events-and-queues",
        "broker": "rabbitmq",
    },
}

# `make test-fast` uses only these variants: no messages, events, and both styles, each with another pipeline.
FAST = {"default", "short", "many-words"}
MARKS = {name: () if name in FAST else (pytest.mark.slow,) for name in VARIANTS}
EACH_NAME = [pytest.param(name, marks=marks) for name, marks in MARKS.items()]
EACH = [pytest.param(VARIANTS[name], id=name, marks=marks) for name, marks in MARKS.items()]
