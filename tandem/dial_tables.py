"""The dial policy as kamailio/policy.cfg looks it up: countries, rules and time zones by the keys of its tables."""

from tandem import callee, countries, weekly
from tandem.dial_rules import Action, Kind, Rule
from tandem.settings import Settings

NONE = "none"
"""In place of an empty list."""


def countries_table(settings: Settings) -> dict[str, str]:
    """National numbers by country code, and by CODE-KIND for those kinds that some rule asks for."""
    kinds = dict.fromkeys([Kind.PREMIUM, *(kind for rule in settings.policy.rules for kind in rule.kinds)])
    table = {}
    for code, country in countries.countries().items():
        table[code] = country.possible
        table[f"{code}-abroad"], table[f"{code}-home"] = callee.abroad(settings, country)
        for kind in filter(callee.is_pattern, kinds):
            table[f"{code}-{kind.value}"] = callee.pattern(country, kind)
    return table


def rules_table(settings: Settings) -> dict[str, str | int]:
    """Each rule by its place: its name, and its conditions as N-KEY."""
    table: dict[str, str | int] = {
        "opens": ",".join(sorted(settings.policy.opens)) or NONE,
        "extension": settings.policy.extension_digits,
    }
    for place, rule in enumerate(settings.policy.rules):
        table[str(place)] = rule.name
        table |= {f"{place}-{key}": value for key, value in _conditions(settings, rule).items()}
    return table


def zones_table(settings: Settings) -> dict[str, tuple[tuple[int, int], ...]]:
    """When the clocks are changed in those time zones that some rule goes by."""
    return {
        zone: weekly.offsets(zone)
        for zone in sorted(_zone(settings, rule) for rule in settings.policy.rules if rule.times)
    }


def _conditions(settings: Settings, rule: Rule) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    if rule.prefixes:
        found["prefixes"] = f"^({'|'.join(prefix.replace('+', '[+]') for prefix in rule.prefixes)})"
    for key in ("kinds", "trunks", "tenants"):
        if values := getattr(rule, key):
            found[key] = ",".join(values)
    if rule.times:
        found["times"] = "/".join(f"{span.start}-{span.stop}" for span in weekly.spans(rule.times))
        found["zone"] = _zone(settings, rule)
    if rule.action is Action.REFUSE:
        return found | {"action": "refuse"}
    found["opens"] = ",".join(rule.opens) or NONE
    if rule.max_calls is not None:
        found["calls"] = rule.max_calls
    if rule.max_calls_per_hour is not None:
        found["hour"] = rule.max_calls_per_hour
    return found


def _zone(settings: Settings, rule: Rule) -> str:
    return rule.time_zone or settings.policy.time_zone
