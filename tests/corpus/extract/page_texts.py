"""Texts in eight languages, written for these tests, of which pages.py makes web pages."""

from dataclasses import dataclass

# fmt: off


@dataclass(frozen=True)
class Texts:
    """A language. paragraphs: of the main text. The rest stands around it, or is named in pages.py."""

    code: str
    titles: list[str]
    headings: list[str]
    paragraphs: list[str]
    items: list[str]  # of lists in the main text
    captions: list[str]
    menu: list[str]
    related: list[str]  # headlines of other pages
    comments: list[str]
    cookies: str
    newsletter: str
    footer: str
    small: list[str]  # read more, share, next, previous, search, comments, related, advertisement, written by, edit


EN = Texts(
    "en",
    ["The lighthouse keeper's second winter", "Why old bread recipes still work", "A short history of the river ferry",
     "Counting bees in a city garden"],
    ["What the first notes say", "How the work was done", "Numbers and doubts", "What remains to be seen"],
    [
        "The tower stood on a rock that was dry for only four hours a day, and everything the keeper needed had to be "
        "carried across in that time. Oil came in barrels, flour in tins, and letters in a bag of waxed cloth. When "
        "the wind turned north nobody crossed at all, sometimes for three weeks.",
        "Bread made with a long rest needs very little yeast. The dough is mixed in the evening, covered with a damp "
        "cloth and left in a cool place until morning. During those hours the flour takes up the water slowly, and "
        "the loaf keeps fresh for days without any of the powders that factories add.",
        "Before the bridge was built, a ferry crossed the river every half hour between sunrise and dusk. It was "
        "pulled along a cable by two men, later by a small engine which the older passengers never trusted. On market "
        "days the queue of carts reached as far as the chapel.",
        "We counted the bees on twelve warm mornings between April and August. Each count lasted ten minutes and was "
        "made at the same bed of thyme, by the same two people, who did not speak with each other until both had "
        "written down their numbers. They rarely differed by more than three.",
        "Not everyone was convinced. The harbour office had its own tables, which were kept for tax reasons and "
        "showed fewer ships than the keeper had seen. It took a patient clerk two months to find the cause: vessels "
        "that only sheltered behind the island were never written into the official books.",
        "What surprised us most was how little the weather mattered. On cloudy days there were fewer visitors, but "
        "they stayed longer at each flower, so that the amount of pollen carried home was almost the same. A single "
        "cold night in May, on the other hand, could empty the bed for a week.",
        "The oven should be as hot as it can get, and there must be steam in it. A pan of boiling water on the floor "
        "of the oven is enough. After a quarter of an hour the pan is taken out and the heat is turned down, and the "
        "crust becomes thin and crisp instead of thick and hard.",
        "Today the cable is gone, but the two stone posts that held it are still there. Children use them as goals. "
        "A plaque explains what they were for, although it gives the wrong year, and a local society has been trying "
        "to have it corrected since the spring of last year.",
        "If you want to repeat the experiment, choose a place that you pass every day anyway. The plants hardly "
        "matter as long as they flower for several weeks. More important is that you never skip a morning because "
        "it looks dull: the dull mornings are exactly those about which we know too little.",
    ],
    ["a sharp pencil and a notebook that can get wet", "five hundred grams of strong flour", "patience for at least "
     "twelve mornings", "a cloth, slightly damp", "the telephone number of somebody who knows birds"],
    ["The tower at low tide, seen from the south", "Two of the twelve beds on a morning in June"],
    ["Home", "News", "Sports", "Culture", "Travel", "About us", "Contact", "Sign in"],
    ["Ten gardens you can visit this weekend", "Council votes on the new tram line", "Museum reopens after two years",
     "The best walks along the coast", "Quiz: do you know these birds?"],
    ["My grandfather worked on that ferry and told us the same story!", "Great article, thanks for sharing this with "
     "us.", "I do not think the numbers in the third part can be right.", "First!!"],
    "We and our partners use cookies to personalise content and advertisements, to provide features for social media "
    "and to analyse our traffic. You can change your choice at any time in the settings at the bottom of each page.",
    "Subscribe to our newsletter and get the best stories in your inbox every Friday. No spam, promised.",
    "All rights reserved. Terms of use. Privacy policy. Imprint. Advertise with us.",
    ["Read more", "Share on social media", "Next", "Previous", "Search", "Comments", "You may also like",
     "Advertisement", "By", "edit"],
)

DE = Texts(
    "de",
    ["Der zweite Winter des Leuchtturmwärters", "Warum alte Brotrezepte noch gelingen", "Kleine Geschichte der "
     "Flussfähre", "Bienen zählen im Stadtgarten"],
    ["Was in den ersten Heften steht", "Wie gearbeitet wurde", "Zahlen und Zweifel", "Was noch offen ist"],
    [
        "Der Turm stand auf einem Felsen, der nur vier Stunden am Tag trocken lag, und alles, was der Wärter "
        "brauchte, musste in dieser Zeit hinübergetragen werden. Das Öl kam in Fässern, das Mehl in Dosen und die "
        "Post in einem Beutel aus Wachstuch. Drehte der Wind nach Norden, kam manchmal drei Wochen lang niemand.",
        "Brot, das lange ruht, braucht nur sehr wenig Hefe. Der Teig wird am Abend gemischt, mit einem feuchten Tuch "
        "bedeckt und bis zum Morgen an einen kühlen Ort gestellt. In diesen Stunden nimmt das Mehl das Wasser langsam "
        "auf, und der Laib bleibt tagelang frisch, ganz ohne die Pulver der Fabriken.",
        "Bevor die Brücke gebaut wurde, fuhr zwischen Sonnenaufgang und Dämmerung jede halbe Stunde eine Fähre über "
        "den Fluss. Zwei Männer zogen sie an einem Seil, später tat es ein kleiner Motor, dem die älteren Fahrgäste "
        "nie trauten. An Markttagen reichte die Schlange der Wagen bis zur Kapelle.",
        "Wir zählten die Bienen an zwölf warmen Vormittagen zwischen April und August. Jede Zählung dauerte zehn "
        "Minuten und geschah am selben Thymianbeet, durch dieselben zwei Personen, die nicht miteinander sprachen, "
        "bis beide ihre Zahlen aufgeschrieben hatten. Selten lagen sie um mehr als drei auseinander.",
        "Nicht alle waren überzeugt. Das Hafenamt führte eigene Tabellen, die der Steuer wegen angelegt worden waren "
        "und weniger Schiffe zeigten, als der Wärter gesehen hatte. Ein geduldiger Schreiber fand nach zwei Monaten "
        "den Grund: Wer hinter der Insel nur Schutz suchte, kam nie in die amtlichen Bücher.",
        "Am meisten überraschte uns, wie wenig das Wetter ausmachte. An trüben Tagen kamen weniger Besucher, doch sie "
        "blieben länger an jeder Blüte, sodass fast die gleiche Menge Pollen heimgetragen wurde. Eine einzige kalte "
        "Nacht im Mai dagegen konnte das Beet für eine ganze Woche leeren.",
        "Der Ofen soll so heiß sein, wie es nur geht, und es muss Dampf darin sein. Dafür genügt eine Pfanne mit "
        "kochendem Wasser auf dem Boden. Nach einer Viertelstunde nimmt man sie heraus und stellt die Hitze zurück; "
        "die Kruste wird dann dünn und knusprig statt dick und hart.",
        "Heute ist das Seil verschwunden, aber die beiden steinernen Pfosten, die es hielten, stehen noch. Kinder "
        "benutzen sie als Tore. Eine Tafel erklärt, wozu sie dienten, nennt jedoch das falsche Jahr, und ein Verein "
        "am Ort bemüht sich seit dem vorigen Frühling darum, dass sie berichtigt wird.",
        "Wer den Versuch wiederholen möchte, wähle einen Ort, an dem er ohnehin jeden Tag vorbeikommt. Welche "
        "Pflanzen dort stehen, ist beinahe gleichgültig, solange sie mehrere Wochen blühen. Wichtiger ist, keinen "
        "Morgen auszulassen, nur weil er trüb aussieht: Gerade über diese wissen wir zu wenig.",
    ],
    ["ein spitzer Bleistift und ein Heft, das nass werden darf", "fünfhundert Gramm kräftiges Mehl", "Geduld für "
     "mindestens zwölf Vormittage", "ein leicht feuchtes Tuch", "die Nummer von jemandem, der Vögel kennt"],
    ["Der Turm bei Ebbe, von Süden gesehen", "Zwei der zwölf Beete an einem Morgen im Juni"],
    ["Startseite", "Nachrichten", "Sport", "Kultur", "Reise", "Über uns", "Kontakt", "Anmelden"],
    ["Zehn Gärten für dieses Wochenende", "Stadtrat stimmt über neue Straßenbahn ab", "Museum öffnet nach zwei Jahren "
     "wieder", "Die schönsten Wege an der Küste", "Rätsel: Kennen Sie diese Vögel?"],
    ["Mein Großvater hat auf dieser Fähre gearbeitet und dasselbe erzählt!", "Toller Beitrag, danke fürs Teilen.",
     "Die Zahlen im dritten Teil können meiner Meinung nach nicht stimmen.", "Erster!!"],
    "Wir und unsere Partner verwenden Cookies, um Inhalte und Anzeigen zu personalisieren, Funktionen für soziale "
    "Medien anzubieten und die Zugriffe auf unsere Seiten zu messen. Ihre Auswahl können Sie jederzeit ändern.",
    "Bestellen Sie unseren Rundbrief und erhalten Sie jeden Freitag die besten Geschichten. Kein Spam, versprochen.",
    "Alle Rechte vorbehalten. Nutzungsbedingungen. Datenschutz. Impressum. Werben Sie bei uns.",
    ["Weiterlesen", "In sozialen Medien teilen", "Weiter", "Zurück", "Suche", "Kommentare", "Das könnte Sie auch "
     "interessieren", "Anzeige", "Von", "Bearbeiten"],
)

FR = Texts(
    "fr",
    ["Le deuxième hiver du gardien de phare", "Pourquoi les vieilles recettes de pain marchent encore", "Petite "
     "histoire du bac de la rivière", "Compter les abeilles dans un jardin de ville"],
    ["Ce que disent les premiers carnets", "Comment le travail fut mené", "Des chiffres et des doutes", "Ce qui reste "
     "à voir"],
    [
        "La tour se dressait sur un rocher qui n'était à sec que quatre heures par jour, et tout ce dont le gardien "
        "avait besoin devait y être porté dans ce délai. L'huile venait en barils, la farine en boîtes et le courrier "
        "dans un sac de toile cirée. Quand le vent tournait au nord, personne ne passait pendant des semaines.",
        "Un pain qui repose longtemps ne demande que très peu de levure. On mélange la pâte le soir, on la couvre d'un "
        "linge humide et on la laisse au frais jusqu'au matin. Pendant ces heures, la farine absorbe l'eau lentement, "
        "et la miche reste fraîche plusieurs jours sans aucune des poudres de l'industrie.",
        "Avant la construction du pont, un bac traversait la rivière toutes les demi-heures, du lever du soleil au "
        "crépuscule. Deux hommes le tiraient le long d'un câble, puis ce fut un petit moteur, auquel les passagers "
        "âgés ne firent jamais confiance. Les jours de marché, la file des charrettes atteignait la chapelle.",
        "Nous avons compté les abeilles pendant douze matinées chaudes, entre avril et août. Chaque comptage durait "
        "dix minutes et se faisait devant le même carré de thym, par les deux mêmes personnes, qui ne se parlaient "
        "pas avant d'avoir noté leurs nombres. L'écart dépassait rarement trois.",
        "Tout le monde n'était pas convaincu. Le bureau du port tenait ses propres tableaux, dressés pour l'impôt, "
        "qui indiquaient moins de navires que le gardien n'en avait vu. Un commis patient mit deux mois à trouver la "
        "cause : ceux qui s'abritaient seulement derrière l'île n'entraient jamais dans les livres officiels.",
        "Le plus étonnant fut de voir combien le temps comptait peu. Par ciel couvert, les visiteuses étaient moins "
        "nombreuses, mais elles restaient plus longtemps sur chaque fleur, si bien que le pollen rapporté était "
        "presque le même. Une seule nuit froide de mai, en revanche, pouvait vider le carré pour une semaine.",
        "Le four doit être aussi chaud que possible, et il y faut de la vapeur. Une poêle d'eau bouillante posée au "
        "fond suffit. Au bout d'un quart d'heure on la retire, on baisse le feu, et la croûte devient mince et "
        "croustillante au lieu d'être épaisse et dure.",
        "Le câble a disparu aujourd'hui, mais les deux bornes de pierre qui le tenaient sont toujours là. Les enfants "
        "s'en servent de buts. Une plaque explique leur usage, bien qu'elle donne une année fausse, et une société "
        "locale essaie de la faire corriger depuis le printemps dernier.",
        "Si vous voulez répéter l'expérience, choisissez un endroit devant lequel vous passez de toute façon chaque "
        "jour. Les plantes importent peu, pourvu qu'elles fleurissent plusieurs semaines. L'important est de ne "
        "sauter aucun matin parce qu'il paraît gris : c'est de ceux-là que nous savons le moins.",
    ],
    ["un crayon bien taillé et un carnet qui ne craint pas l'eau", "cinq cents grammes de farine de force", "de la "
     "patience pour douze matinées au moins", "un linge à peine humide", "le numéro d'une personne qui connaît les "
     "oiseaux"],
    ["La tour à marée basse, vue du sud", "Deux des douze carrés, un matin de juin"],
    ["Accueil", "Actualités", "Sport", "Culture", "Voyages", "À propos", "Nous écrire", "Connexion"],
    ["Dix jardins à visiter ce week-end", "Le conseil vote la nouvelle ligne de tram", "Le musée rouvre après deux "
     "ans", "Les plus belles promenades de la côte", "Jeu : connaissez-vous ces oiseaux ?"],
    ["Mon grand-père a travaillé sur ce bac et racontait la même chose !", "Très bel article, merci du partage.",
     "À mon avis, les nombres de la troisième partie sont faux.", "Premier !!"],
    "Nous et nos partenaires utilisons des cookies pour personnaliser le contenu et la publicité, offrir des fonctions "
    "de réseaux sociaux et analyser notre trafic. Vous pouvez modifier votre choix à tout moment en bas de page.",
    "Abonnez-vous à notre lettre et recevez chaque vendredi nos meilleurs récits. Promis, aucun courriel inutile.",
    "Tous droits réservés. Conditions d'utilisation. Confidentialité. Mentions légales. Publicité.",
    ["Lire la suite", "Partager sur les réseaux", "Suivant", "Précédent", "Recherche", "Commentaires", "À lire aussi",
     "Publicité", "Par", "modifier"],
)

ES = Texts(
    "es",
    ["El segundo invierno del farero", "Por qué siguen funcionando las recetas antiguas de pan", "Breve historia de "
     "la barca del río", "Contar abejas en un jardín urbano"],
    ["Lo que dicen los primeros cuadernos", "Cómo se hizo el trabajo", "Números y dudas", "Lo que queda por ver"],
    [
        "La torre estaba sobre una roca que solo quedaba seca cuatro horas al día, y todo lo que el farero necesitaba "
        "tenía que llegar en ese tiempo. El aceite venía en barriles, la harina en latas y las cartas en una bolsa de "
        "hule. Cuando el viento giraba al norte, a veces no cruzaba nadie durante tres semanas.",
        "El pan que reposa mucho necesita muy poca levadura. La masa se mezcla por la noche, se cubre con un paño "
        "húmedo y se deja en un lugar fresco hasta la mañana. En esas horas la harina toma el agua despacio, y la "
        "hogaza se mantiene fresca varios días sin los polvos que añaden las fábricas.",
        "Antes de que se construyera el puente, una barca cruzaba el río cada media hora, desde el amanecer hasta el "
        "anochecer. Dos hombres tiraban de ella por un cable, y más tarde lo hizo un pequeño motor del que los "
        "viajeros mayores nunca se fiaron. Los días de mercado la cola de carros llegaba hasta la ermita.",
        "Contamos las abejas en doce mañanas cálidas entre abril y agosto. Cada recuento duraba diez minutos y se "
        "hacía ante el mismo macizo de tomillo, por las mismas dos personas, que no hablaban entre sí hasta haber "
        "anotado sus números. Rara vez se diferenciaban en más de tres.",
        "No todos quedaron convencidos. La oficina del puerto llevaba sus propias tablas, hechas para los impuestos, "
        "que mostraban menos barcos de los que había visto el farero. Un escribiente paciente tardó dos meses en "
        "hallar la causa: los que solo se refugiaban tras la isla nunca entraban en los libros oficiales.",
        "Lo que más nos sorprendió fue lo poco que importaba el tiempo. En días nublados había menos visitantes, pero "
        "se quedaban más rato en cada flor, de modo que el polen llevado a casa era casi el mismo. Una sola noche "
        "fría de mayo, en cambio, podía vaciar el macizo durante una semana.",
        "El horno debe estar lo más caliente posible, y dentro tiene que haber vapor. Basta una sartén con agua "
        "hirviendo en el fondo. Al cabo de un cuarto de hora se retira y se baja el fuego, y la corteza queda fina y "
        "crujiente en lugar de gruesa y dura.",
        "Hoy el cable ha desaparecido, pero los dos postes de piedra que lo sujetaban siguen allí. Los niños los usan "
        "de portería. Una placa explica para qué servían, aunque da un año equivocado, y una asociación vecinal "
        "intenta que la corrijan desde la primavera pasada.",
        "Quien quiera repetir el experimento debería elegir un lugar por el que pase cada día de todos modos. Las "
        "plantas apenas importan mientras florezcan varias semanas. Más importante es no saltarse ninguna mañana "
        "porque parezca gris: precisamente de esas mañanas sabemos demasiado poco.",
    ],
    ["un lápiz afilado y un cuaderno que se pueda mojar", "quinientos gramos de harina de fuerza", "paciencia para doce "
     "mañanas al menos", "un paño apenas húmedo", "el teléfono de alguien que sepa de aves"],
    ["La torre con marea baja, vista desde el sur", "Dos de los doce macizos una mañana de junio"],
    ["Inicio", "Noticias", "Deportes", "Cultura", "Viajes", "Quiénes somos", "Contacto", "Entrar"],
    ["Diez jardines para este fin de semana", "El pleno vota la nueva línea de tranvía", "El museo reabre tras dos "
     "años", "Los mejores paseos por la costa", "Prueba: ¿conoce estas aves?"],
    ["¡Mi abuelo trabajó en esa barca y contaba lo mismo!", "Muy buen artículo, gracias por compartirlo.", "Creo que "
     "los números de la tercera parte no pueden ser correctos.", "¡¡Primero!!"],
    "Nosotros y nuestros socios utilizamos cookies para personalizar contenidos y anuncios, ofrecer funciones de redes "
    "sociales y analizar el tráfico. Puede cambiar su elección en cualquier momento al pie de cada página.",
    "Suscríbase a nuestro boletín y reciba cada viernes las mejores historias. Sin correo basura, prometido.",
    "Todos los derechos reservados. Condiciones de uso. Privacidad. Aviso legal. Publicidad.",
    ["Leer más", "Compartir en redes sociales", "Siguiente", "Anterior", "Buscar", "Comentarios", "También le puede "
     "interesar", "Publicidad", "Por", "editar"],
)

FI = Texts(
    "fi",
    ["Majakanvartijan toinen talvi", "Miksi vanhat leipäohjeet toimivat yhä", "Jokilautan lyhyt historia",
     "Mehiläisten laskemista kaupunkipuutarhassa"],
    ["Mitä ensimmäisissä vihoissa lukee", "Miten työ tehtiin", "Lukuja ja epäilyksiä", "Mitä vielä on näkemättä"],
    [
        "Torni seisoi kalliolla, joka oli kuivana vain neljä tuntia päivässä, ja kaikki vartijan tarvitsema oli "
        "kannettava yli siinä ajassa. Öljy tuli tynnyreissä, jauhot peltirasioissa ja kirjeet vahakankaisessa "
        "pussissa. Kun tuuli kääntyi pohjoiseen, kukaan ei ylittänyt salmea, joskus kolmeen viikkoon.",
        "Pitkään lepäävä leipä tarvitsee hyvin vähän hiivaa. Taikina sekoitetaan illalla, peitetään kostealla "
        "liinalla ja jätetään viileään paikkaan aamuun asti. Niiden tuntien aikana jauhot imevät veden hitaasti, ja "
        "leipä pysyy tuoreena päiviä ilman tehtaiden lisäämiä jauheita.",
        "Ennen sillan rakentamista lautta kulki joen yli puolen tunnin välein auringonnoususta hämärään. Sitä veti "
        "vaijeria pitkin kaksi miestä, myöhemmin pieni moottori, johon vanhemmat matkustajat eivät koskaan "
        "luottaneet. Markkinapäivinä kärryjen jono ulottui kappelille saakka.",
        "Laskimme mehiläiset kahtenatoista lämpimänä aamuna huhtikuun ja elokuun välillä. Jokainen laskenta kesti "
        "kymmenen minuuttia ja tehtiin saman timjamipenkin äärellä. Laskijat olivat samat kaksi ihmistä, jotka eivät "
        "puhuneet keskenään ennen kuin kumpikin oli kirjannut lukunsa.",
        "Kaikki eivät olleet vakuuttuneita. Satamakonttorilla oli omat taulukkonsa, joita pidettiin veroja varten ja "
        "joissa oli vähemmän laivoja kuin vartija oli nähnyt. Kärsivälliseltä kirjurilta kului kaksi kuukautta löytää "
        "syy: saaren taakse vain suojaan tulleita ei koskaan merkitty virallisiin kirjoihin.",
        "Eniten meitä yllätti, kuinka vähän säällä oli merkitystä. Pilvisinä päivinä kävijöitä oli vähemmän, mutta ne "
        "viipyivät kauemmin kussakin kukassa, joten kotiin kannetun siitepölyn määrä oli miltei sama. Yksi ainoa "
        "kylmä yö toukokuussa saattoi sen sijaan tyhjentää penkin viikoksi.",
        "Uunin pitää olla niin kuuma kuin mahdollista, ja siinä on oltava höyryä. Kiehuva vesi pannussa uunin "
        "pohjalla riittää. Neljännestunnin kuluttua pannu otetaan pois ja lämpöä lasketaan, jolloin kuoresta tulee "
        "ohut ja rapea eikä paksu ja kova.",
        "Nykyään vaijeri on poissa, mutta sitä kannatelleet kaksi kivipylvästä ovat yhä paikoillaan. Lapset käyttävät "
        "niitä maaleina. Laatta kertoo, mihin niitä käytettiin, vaikka siinä on väärä vuosi, ja paikallinen yhdistys "
        "on yrittänyt saada sen korjatuksi viime keväästä lähtien.",
        "Jos haluat toistaa kokeen, valitse paikka, jonka ohi kuljet joka päivä muutenkin. Kasveilla ei ole suurta "
        "väliä, kunhan ne kukkivat useita viikkoja. Tärkeämpää on, ettet jätä yhtään aamua väliin vain siksi, että se "
        "näyttää harmaalta: juuri niistä aamuista tiedämme liian vähän.",
    ],
    ["terävä kynä ja vihko, joka saa kastua", "viisisataa grammaa vahvoja jauhoja", "kärsivällisyyttä ainakin "
     "kahdeksitoista aamuksi", "hieman kostea liina", "lintuja tuntevan ihmisen puhelinnumero"],
    ["Torni laskuveden aikaan etelästä nähtynä", "Kaksi kahdestatoista penkistä kesäkuun aamuna"],
    ["Etusivu", "Uutiset", "Urheilu", "Kulttuuri", "Matkailu", "Tietoa meistä", "Yhteystiedot", "Kirjaudu"],
    ["Kymmenen puutarhaa viikonlopuksi", "Valtuusto äänestää uudesta raitiotiestä", "Museo avautuu kahden vuoden "
     "jälkeen", "Rannikon parhaat kävelyreitit", "Visa: tunnetko nämä linnut?"],
    ["Isoisäni työskenteli sillä lautalla ja kertoi samaa!", "Hieno juttu, kiitos kun jaoit.", "Minusta kolmannen osan "
     "luvut eivät voi pitää paikkaansa.", "Eka!!"],
    "Me ja kumppanimme käytämme evästeitä sisällön ja mainosten kohdentamiseen, sosiaalisen median toimintoihin sekä "
    "liikenteen seurantaan. Voit muuttaa valintaasi milloin tahansa jokaisen sivun alalaidassa.",
    "Tilaa uutiskirjeemme ja saat parhaat tarinat joka perjantai. Ei roskapostia, lupaamme sen.",
    "Kaikki oikeudet pidätetään. Käyttöehdot. Tietosuoja. Julkaisija. Mainosta meillä.",
    ["Lue lisää", "Jaa sosiaalisessa mediassa", "Seuraava", "Edellinen", "Haku", "Kommentit", "Saatat pitää myös "
     "näistä", "Mainos", "Kirjoittanut", "muokkaa"],
)

RU = Texts(
    "ru",
    ["Вторая зима смотрителя маяка", "Почему старые рецепты хлеба всё ещё работают", "Краткая история речного парома",
     "Как считали пчёл в городском саду"],
    ["Что говорят первые тетради", "Как шла работа", "Числа и сомнения", "Что ещё предстоит узнать"],
    [
        "Башня стояла на скале, которая оставалась сухой всего четыре часа в день, и всё нужное смотрителю приходилось "
        "переносить за это время. Масло привозили в бочках, муку в жестяных банках, а письма в мешке из вощёной "
        "ткани. Когда ветер поворачивал на север, никто не переправлялся, иногда по три недели.",
        "Хлебу, который долго отдыхает, нужно совсем мало дрожжей. Тесто замешивают вечером, накрывают влажным "
        "полотенцем и оставляют в прохладном месте до утра. За эти часы мука медленно впитывает воду, и буханка "
        "остаётся свежей несколько дней без всяких порошков, которые добавляют на заводах.",
        "До постройки моста паром пересекал реку каждые полчаса, от восхода до сумерек. Его тянули по канату два "
        "человека, а позже небольшой мотор, которому пожилые пассажиры так и не поверили. В базарные дни очередь "
        "телег доходила до самой часовни.",
        "Мы считали пчёл двенадцать тёплых утр с апреля по август. Каждый подсчёт длился десять минут и проходил у "
        "одной и той же грядки с тимьяном. Считали два одних и тех же человека, которые не разговаривали друг с "
        "другом, пока оба не записывали свои числа. Расхождение редко превышало три.",
        "Убедить удалось не всех. В портовой конторе вели свои таблицы ради налогов, и кораблей в них было меньше, "
        "чем видел смотритель. Терпеливому писарю понадобилось два месяца, чтобы найти причину: суда, которые только "
        "укрывались за островом, никогда не вносили в официальные книги.",
        "Больше всего нас удивило, как мало значила погода. В пасмурные дни гостей было меньше, зато они дольше "
        "задерживались на каждом цветке, так что домой приносили почти столько же пыльцы. А вот одна холодная майская "
        "ночь могла опустошить грядку на целую неделю.",
        "Печь должна быть как можно горячее, и в ней обязательно нужен пар. Достаточно сковороды с кипятком на дне. "
        "Через четверть часа её вынимают и убавляют жар, и корка получается тонкой и хрустящей, а не толстой и "
        "твёрдой.",
        "Сегодня каната уже нет, но два каменных столба, которые его держали, стоят до сих пор. Дети играют между "
        "ними как в воротах. Табличка объясняет их назначение, хотя год на ней указан неверно, и местное общество с "
        "прошлой весны добивается исправления.",
        "Если вы хотите повторить опыт, выберите место, мимо которого и так проходите каждый день. Какие там "
        "растения, почти безразлично, лишь бы цвели несколько недель. Важнее не пропускать утро только потому, что "
        "оно кажется хмурым: именно о таких мы знаем слишком мало.",
    ],
    ["острый карандаш и тетрадь, которой не страшна вода", "пятьсот граммов крепкой муки", "терпение хотя бы на "
     "двенадцать утр", "слегка влажное полотенце", "телефон того, кто разбирается в птицах"],
    ["Башня во время отлива, вид с юга", "Две из двенадцати грядок июньским утром"],
    ["Главная", "Новости", "Спорт", "Культура", "Путешествия", "О нас", "Контакты", "Войти"],
    ["Десять садов на эти выходные", "Совет голосует за новый трамвай", "Музей открывается спустя два года", "Лучшие "
     "прогулки вдоль берега", "Тест: знаете ли вы этих птиц?"],
    ["Мой дед работал на этом пароме и рассказывал то же самое!", "Отличная статья, спасибо, что поделились.",
     "По-моему, числа в третьей части не могут быть верными.", "Первый!!"],
    "Мы и наши партнёры используем файлы cookie, чтобы подбирать материалы и рекламу, предоставлять функции "
    "социальных сетей и изучать посещаемость. Изменить свой выбор можно в любое время внизу страницы.",
    "Подпишитесь на нашу рассылку и получайте лучшие истории каждую пятницу. Никакого спама, обещаем.",
    "Все права защищены. Условия использования. Конфиденциальность. Выходные данные. Реклама.",
    ["Читать далее", "Поделиться в соцсетях", "Дальше", "Назад", "Поиск", "Комментарии", "Вам может понравиться",
     "Реклама", "Автор:", "править"],
)

JA = Texts(
    "ja",
    ["灯台守の二度目の冬", "昔のパンの作り方が今も役に立つ理由", "川の渡し船の小さな歴史", "都会の庭で蜂を数える"],
    ["最初の帳面に書かれていたこと", "仕事の進め方", "数字と疑問", "これから確かめること"],
    [
        "塔は一日に四時間しか乾かない岩の上に立っていて、灯台守に必要な物はすべてその間に運ばなければならなかった。"
        "油は樽で、小麦粉は缶で、手紙は蝋引きの布袋で届いた。風が北に変わると、三週間も誰も渡って来ないことがあった。",
        "長く休ませるパンには、酵母はほんの少しで足りる。夕方に生地を混ぜ、湿った布をかけて、朝まで涼しい場所に置いておく。"
        "その間に粉はゆっくりと水を吸い、工場で加えるような粉末がなくても、焼いたパンは何日も柔らかいままである。",
        "橋ができる前は、日の出から夕暮れまで三十分ごとに渡し船が川を行き来していた。"
        "初めは二人の男が綱を引き、後には小さな発動機が使われたが、年配の客は最後まで信用しなかった。市の立つ日には荷車の列が礼拝堂まで続いた。",
        "私たちは四月から八月までの暖かい朝に十二回、蜂を数えた。一回は十分間で、いつも同じタイムの花壇の前で、同じ二人が行った。"
        "二人は互いに数字を書き終えるまで話をしなかった。違いが三を超えることはめったになかった。",
        "誰もが納得したわけではない。港の役所には税のために作られた別の表があり、そこに載った船は灯台守が見た数より少なかった。"
        "根気のよい書記が二か月かけて原因を見つけた。島の陰で風を避けただけの船は、公の帳簿に書かれていなかったのである。",
        "最も意外だったのは、天気の影響が小さいことだった。曇りの日に訪れる蜂は少なかったが、一つの花に長く留まるので、"
        "巣に運ばれる花粉の量はほとんど変わらなかった。ところが五月の寒い一夜だけで、花壇が一週間も空になることがあった。",
        "窯はできるだけ熱くし、中に蒸気を満たす必要がある。底に熱湯を入れた鍋を置けば十分である。"
        "十五分たったら鍋を取り出して火を弱める。そうすると皮は厚く硬くならず、薄くて香ばしく焼き上がる。",
        "今では綱はなくなったが、それを支えていた二本の石柱はまだ残っている。子どもたちはそれをゴールにして遊ぶ。"
        "説明の板には使い道が書かれているが年号が間違っていて、地元の会が去年の春から直してもらおうとしている。",
        "同じことを試したい人は、どうせ毎日通る場所を選ぶとよい。数週間咲き続ける花なら種類は何でもかまわない。"
        "大切なのは、曇っているからといって朝の観察を休まないことである。私たちがよく知らないのは、まさにそういう朝なのだから。",
    ],
    ["よく削った鉛筆と濡れてもよい帳面", "強力粉を五百グラム", "少なくとも十二回の朝に耐える根気", "少し湿らせた布",
     "鳥に詳しい人の電話番号"],
    ["干潮時の塔を南から見る", "六月の朝の花壇、十二のうち二つ"],
    ["ホーム", "ニュース", "スポーツ", "文化", "旅行", "会社案内", "お問い合わせ", "ログイン"],
    ["今週末に訪ねたい十の庭園", "市議会が新しい路面電車を採決", "美術館が二年ぶりに再開", "海沿いの散歩道ベスト",
     "クイズ：この鳥を知っていますか"],
    ["祖父があの渡し船で働いていて、同じ話をしていました！", "とても良い記事でした。ありがとうございます。",
     "三つ目の部分の数字は正しくないと思います。", "一番乗り！"],
    "当社と提携会社は、内容や広告の最適化、ソーシャルメディア機能の提供、アクセスの分析のためにクッキーを使用しています。"
    "設定は各ページの下部でいつでも変更できます。",
    "メールマガジンに登録すると、毎週金曜日に選りすぐりの記事をお届けします。迷惑メールは送りません。",
    "無断転載を禁じます。利用規約。個人情報保護方針。運営者情報。広告掲載。",
    ["続きを読む", "シェアする", "次へ", "前へ", "検索", "コメント", "おすすめの記事", "広告", "文：", "編集"],
)

AR = Texts(
    "ar",
    ["الشتاء الثاني لحارس المنارة", "لماذا ما زالت وصفات الخبز القديمة ناجحة", "تاريخ قصير لعبّارة النهر",
     "عدّ النحل في حديقة وسط المدينة"],
    ["ماذا تقول الدفاتر الأولى", "كيف جرى العمل", "أرقام وشكوك", "ما الذي بقي لنراه"],
    [
        "كان البرج قائماً على صخرة لا تجفّ إلا أربع ساعات في اليوم، وكان لا بد من نقل كل ما يحتاج إليه الحارس في ذلك "
        "الوقت. كان الزيت يصل في براميل والدقيق في علب والرسائل في كيس من القماش المشمّع. وحين تتحول الريح إلى الشمال "
        "لم يكن أحد يعبر، أحياناً لثلاثة أسابيع.",
        "الخبز الذي يرتاح طويلاً لا يحتاج إلا إلى قليل جداً من الخميرة. يُخلط العجين في المساء ويُغطى بقماش رطب ويُترك في "
        "مكان بارد حتى الصباح. في تلك الساعات يمتص الدقيق الماء ببطء، فيبقى الرغيف طازجاً أياماً من غير المساحيق التي "
        "تضيفها المصانع.",
        "قبل بناء الجسر كانت عبّارة تقطع النهر كل نصف ساعة من شروق الشمس إلى الغسق. كان رجلان يسحبانها على طول حبل، ثم "
        "حلّ محلهما محرك صغير لم يثق به الركاب المسنون قط. وفي أيام السوق كان صف العربات يصل إلى المصلّى.",
        "أحصينا النحل في اثني عشر صباحاً دافئاً بين نيسان وآب. استغرق كل عدّ عشر دقائق أمام حوض الزعتر نفسه، وقام به "
        "الشخصان نفسهما، ولم يتحدث أحدهما إلى الآخر حتى يكتب كلاهما رقمه. ونادراً ما زاد الفرق على ثلاث.",
        "لم يقتنع الجميع. كان لمكتب الميناء جداوله الخاصة التي وُضعت من أجل الضرائب، وفيها سفن أقل مما رآه الحارس. واحتاج "
        "كاتب صبور إلى شهرين ليجد السبب: السفن التي احتمت خلف الجزيرة فقط لم تُسجَّل في الدفاتر الرسمية أبداً.",
        "أكثر ما أدهشنا هو قلة تأثير الطقس. في الأيام الغائمة كان الزوار أقل، لكنهم كانوا يمكثون مدة أطول على كل زهرة، "
        "فكانت كمية اللقاح المحمولة إلى الخلية متساوية تقريباً. أما ليلة باردة واحدة في أيار فكانت كافية لإخلاء الحوض أسبوعاً.",
        "يجب أن يكون الفرن ساخناً قدر الإمكان وأن يكون فيه بخار. تكفي مقلاة من الماء المغلي في قاعه. وبعد ربع ساعة "
        "تُرفع المقلاة وتُخفّض النار، فتصبح القشرة رقيقة هشة بدلاً من أن تكون سميكة قاسية.",
        "اختفى الحبل اليوم، لكن العمودين الحجريين اللذين كانا يحملانه ما زالا في مكانهما. يتخذهما الأطفال مرمى لكرة القدم. "
        "وتشرح لوحة صغيرة ما كانا له، مع أنها تذكر سنة خاطئة، وتحاول جمعية محلية تصحيحها منذ الربيع الماضي.",
        "من أراد أن يعيد التجربة فليختر مكاناً يمر به كل يوم على أي حال. لا تهم أنواع النباتات ما دامت تزهر عدة أسابيع. "
        "والأهم ألا يترك أي صباح لمجرد أنه يبدو غائماً، فتلك الصباحات هي بالذات ما لا نعرف عنه إلا القليل.",
    ],
    ["قلم مبريّ ودفتر لا يضره البلل", "خمسمئة غرام من الدقيق القوي", "صبر يكفي اثني عشر صباحاً على الأقل", "قطعة قماش "
     "رطبة قليلاً", "رقم هاتف شخص يعرف الطيور"],
    ["البرج وقت الجزر كما يُرى من الجنوب", "حوضان من الاثني عشر في صباح من حزيران"],
    ["الرئيسية", "أخبار", "رياضة", "ثقافة", "سفر", "من نحن", "اتصل بنا", "دخول"],
    ["عشر حدائق لزيارتها هذا الأسبوع", "المجلس يصوّت على خط الترام الجديد", "المتحف يفتح أبوابه بعد عامين", "أجمل "
     "المسارات على الساحل", "اختبار: هل تعرف هذه الطيور؟"],
    ["عمل جدي على تلك العبّارة وكان يروي القصة نفسها!", "مقال رائع، شكراً على المشاركة.", "لا أظن أن أرقام القسم "
     "الثالث صحيحة.", "الأول!!"],
    "نستخدم نحن وشركاؤنا ملفات تعريف الارتباط لتخصيص المحتوى والإعلانات وتوفير ميزات الشبكات الاجتماعية وتحليل الزيارات. "
    "يمكنكم تغيير اختياركم في أي وقت من أسفل كل صفحة.",
    "اشتركوا في نشرتنا البريدية لتصلكم أفضل القصص كل يوم جمعة. لا رسائل مزعجة، هذا وعد.",
    "جميع الحقوق محفوظة. شروط الاستخدام. الخصوصية. بيانات النشر. أعلنوا معنا.",
    ["اقرأ المزيد", "شارك على الشبكات", "التالي", "السابق", "بحث", "التعليقات", "قد يعجبكم أيضاً", "إعلان", "بقلم", "تحرير"],
)

LANGUAGES = [EN, DE, FR, ES, FI, RU, JA, AR]
