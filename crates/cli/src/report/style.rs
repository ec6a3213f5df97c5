//! The page's style sheet.

/// Colours follow the reader's light or dark setting.
pub(super) const CSS: &str = "\
:root{color-scheme:light \
dark;--bg:#fff;--fg:#1d2733;--soft:#5b6875;--line:#d8dee5;--tile:#f4f6f8;\
--good:#00704a;--bad:#b3261e;--mark:#fff1bf;--c0:#0072b2;--c1:#e69f00;\
--c2:#009e73;--c3:#cc79a7;--c4:#56b4e9;--c5:#d55e00;--c6:#b8a600;--c7:#8c8c8c}\
@media(prefers-color-scheme:dark){:root{--bg:#12171d;--fg:#e6ebf0;--soft:#9aa7b4;--line:#2d3742;\
--tile:#1a212a;--good:#4cc38a;--bad:#ff8a80;--mark:#5a4a10;--c0:#3d9be0;--c1:#e69f00;\
--c2:#1fb58a;--c3:#d58fb8;--c4:#8fd0f5;--c5:#f07f2e;--c6:#c9b91f;--c7:#9a9a9a}}\
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 \
system-ui,sans-serif}\
main{max-width:1060px;margin:0 auto;padding:1rem}h1{font-size:1.6rem;margin:.5rem \
0}h2{font-size:1.15rem;margin:2rem 0 .5rem}\
header p,.note{color:var(--soft)}.note{font-size:.9rem}\
.badge{font-size:.8rem;font-weight:700;padding:.1rem .5rem;border-radius:.4rem;border:1px \
solid;vertical-align:middle}\
.pass{color:var(--good)}.fail{color:var(--bad)}mark{background:var(--mark);color:inherit;padding:0 .2rem}\
.talk{background:var(--tile);border-radius:.5rem;padding:.3rem 1rem}\
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:.6rem;margin-top:1rem}\
.tiles div{background:var(--tile);border-radius:.5rem;padding:.6rem .8rem}.tiles \
b{display:block;font-size:1.15rem}.tiles span{color:var(--soft);font-size:.85rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid \
var(--line);vertical-align:top}th{font-weight:600;white-space:nowrap}\
svg{width:100%;height:auto;min-width:640px;display:block}svg text{fill:var(--fg);font:12px \
system-ui,sans-serif}\
svg .soft{fill:var(--soft)}svg .axis{stroke:var(--soft)}svg .grid{stroke:var(--line)}\
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.85rem;margin:.3rem 0}.legend \
i{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin-right:.35rem}\
summary{cursor:pointer}\
@media(max-width:640px){th{white-space:normal}svg{min-width:900px}.wide{scrollbar-width:thin}}";
