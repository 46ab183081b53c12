// The page says times in UTC; this says them in the reader's own time. UTC stays in the title.
// What comes later announces itself by the event "fresh".
(() => {
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  const day = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const near = 12 * 60 * 60 * 1000;
  const say = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      const format = Math.abs(Date.now() - moment) < near ? clock : day;
      time.textContent = new Intl.DateTimeFormat("en-GB", format).format(moment);
    }
    for (const label of root.querySelectorAll(".utc")) label.remove();
  };
  say(document);
  document.addEventListener("fresh", (event) => say(event.target));
})();
