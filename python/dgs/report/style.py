# SPDX-License-Identifier: Apache-2.0
"""How the page looks, light and dark. Runs differ in hue, lightness and dashes, for eyes that tell no hues apart."""

from __future__ import annotations

_LIGHT = ("#0062a8", "#d1570a", "#00805a", "#a83f86", "#7a6a00", "#444c58")
_DARK = ("#5cb6f2", "#f79d4c", "#3fd0a4", "#eb93cb", "#ddcb4e", "#b4becc")
_DASHES = ("none", "9 3", "3 3", "12 3 3 3", "6 2 2 2 2 2", "1.5 3")


def _palette(colours: tuple[str, ...]) -> str:
    return "".join(f"--c{i}:{colour};" for i, colour in enumerate(colours))


def _runs() -> str:
    return "".join(
        f"polyline.run{i},line.run{i}{{stroke:var(--c{i});stroke-dasharray:{dashes}}}"
        f"rect.run{i},circle.run{i}{{fill:var(--c{i})}}"
        for i, dashes in enumerate(_DASHES)
    )


STYLE = f"""
:root{{color-scheme:light dark;--paper:#fff;--ink:#1a2230;--faint:#5d6879;--line:#e3e7ed;--card:#f7f9fb;
{_palette(_LIGHT)}}}
@media(prefers-color-scheme:dark){{:root{{--paper:#11151b;--ink:#e7ebf1;--faint:#9aa5b6;--line:#2a323d;--card:#181e27;
{_palette(_DARK)}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;max-width:1180px;padding:28px 20px 60px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,"DejaVu Sans",sans-serif}}
h1{{font-size:25px;line-height:1.25;margin:0 0 4px}}h2{{font-size:17px;margin:34px 0 10px}}
p{{color:var(--faint);margin:0 0 14px}}
.legend{{position:sticky;top:0;z-index:1;display:flex;flex-wrap:wrap;gap:4px 22px;padding:9px 0;margin-bottom:14px;
background:var(--paper);border-bottom:1px solid var(--line);font-weight:600}}
.key{{width:26px;height:10px;margin-right:8px;vertical-align:baseline}}.key line{{stroke-width:3}}
.figures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:14px}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(185px,1fr));gap:12px}}
.tile,figure{{margin:0;padding:12px 14px;background:var(--card);border:1px solid var(--line);border-radius:8px}}
.tile b{{display:block;font-size:18px;font-variant-numeric:tabular-nums;white-space:nowrap}}
.tile span{{font-size:13px;color:var(--faint)}}
figure{{max-width:560px}}figcaption{{font-size:13px;font-weight:600;margin-bottom:4px}}
figure svg{{width:100%;height:auto;display:block}}
svg text{{font-size:12px;fill:var(--faint)}}svg .grid{{stroke:var(--line)}}
svg .floor{{stroke:var(--faint);opacity:.6}}
polyline{{fill:none;stroke-width:2;stroke-linejoin:round}}
.scroll{{overflow-x:auto}}table{{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}}
th,td{{padding:6px 22px 6px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}}
th{{color:var(--faint);font-weight:600}}.word{{text-align:left}}
details{{margin-top:12px}}summary{{cursor:pointer;color:var(--faint);margin-bottom:8px}}
{_runs()}"""
